"""The marker of the suite that runs histories. The checker's own tests belong to the default run."""

import sys
from pathlib import Path

import pytest

RUNS_HISTORIES = Path(__file__).parent / "test_histories.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run histories; skip them on systems without signals such as SIGSTOP."""
    for item in items:
        if item.path == RUNS_HISTORIES:
            item.add_marker(pytest.mark.histories)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="requires /proc and signals"))
