"""Fixtures that run several machines on a network that a test can damage."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from tests.partition.bed import ELECTION_SECONDS, Bed, running_bed
from tests.partition.members import faketime_library
from tests.partition.network import missing_requirements

Note = Callable[[str], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.partition)


@pytest.fixture(scope="module")
def own_clocks() -> Collection[str]:
    """Return the names of members whose clocks can be set; a module can override this fixture."""
    return ()


@pytest.fixture(scope="module")
def election_seconds() -> float:
    """Return after which silence members elect a primary and a primary steps down; a module can override this."""
    return ELECTION_SECONDS


@pytest.fixture(scope="module")
def bed(
    tmp_path_factory: pytest.TempPathFactory, own_clocks: Collection[str], election_seconds: float
) -> Iterator[Bed]:
    """Run the machines for the module. Fails, and does not skip, on a machine that cannot."""
    missing = missing_requirements()
    if own_clocks and not faketime_library():
        missing.append("libfaketime (apt-get install faketime)")
    if missing:
        pytest.fail(f"The partition tests need what is missing here: {', '.join(missing)}", pytrace=False)
    folder = tmp_path_factory.mktemp("partition")
    with running_bed(folder, own_clocks=own_clocks, election_seconds=election_seconds) as bed:
        yield bed
