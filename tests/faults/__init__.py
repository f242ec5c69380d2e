"""Fault injection: tests of the service while its database, processes, clocks or clients fail."""
