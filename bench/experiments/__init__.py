"""The experiments, one per module; each adds rows to the table.

Every module has `plan`, which returns how many steps its `run` reports, and roughly how long each takes.
"""
