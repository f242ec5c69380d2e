"""The experiments, one per module; each adds rows to the table.

Every module has `steps`, which returns how many progress steps its `run` reports.
"""
