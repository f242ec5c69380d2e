"""The markers of the suites that run histories. The checker's own tests belong to the default run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.histories.services import running_replica_set
from tools.local_mongo import ReplicaSet

HERE = Path(__file__).parent
MARKS = {HERE / "test_histories.py": pytest.mark.histories, HERE / "test_defects.py": pytest.mark.defects}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run histories; skip them on systems without signals such as SIGSTOP."""
    for item in items:
        if mark := MARKS.get(item.path):
            item.add_marker(mark)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="requires /proc and signals"))


@pytest.fixture(scope="module")
def replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """Run the database of all tests here."""
    with running_replica_set(tmp_path_factory.mktemp("mongodb")) as replica_set:
        yield replica_set
