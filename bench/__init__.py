"""Measure this service and its peers side by side; scripts/bench runs it, bench/README.md explains it."""
