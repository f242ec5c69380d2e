"""Benchmarks of this service and its peers: scripts/bench runs them, bench/README.md explains them."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
