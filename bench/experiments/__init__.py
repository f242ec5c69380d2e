"""The experiments, one a module; each fills rows of the table.

Every module has `steps`, which tells how often its `run` will say what comes next.
"""
