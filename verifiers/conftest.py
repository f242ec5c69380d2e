"""Marks the tests of the verifiers, which `scripts/test verifiers` runs."""

import shutil
from pathlib import Path

import pytest

VERIFIERS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder."""
    for item in items:
        if item.path.is_relative_to(VERIFIERS):
            item.add_marker(pytest.mark.verifiers)


@pytest.fixture(scope="session", autouse=True)
def _node() -> None:
    """Fail, and do not skip, without Node and its packages."""
    assert shutil.which("node"), "node is not installed"
    assert (VERIFIERS / "node/node_modules").exists(), "run `npm ci` in verifiers/node"
