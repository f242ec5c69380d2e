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
def languages() -> Collection[str]:
    """Return the languages of resource servers that follow both services; a module can override this."""
    return ()


@pytest.fixture(scope="module")
def clocks_apart() -> float:
    """Return how many seconds the wall clocks of resource servers are apart from others; a module can override this."""
    return 0


@pytest.fixture(scope="module")
def bed(
    tmp_path_factory: pytest.TempPathFactory,
    own_clocks: Collection[str],
    election_seconds: float,
    languages: Collection[str],
    clocks_apart: float,
) -> Iterator[Bed]:
    """Run the machines for the module. Fails, and does not skip, on a machine that cannot."""
    missing = missing_requirements()
    if (own_clocks or clocks_apart) and not faketime_library():
        missing.append("libfaketime (apt-get install faketime)")
    if missing:
        pytest.fail(f"The partition tests need what is missing here: {', '.join(missing)}", pytrace=False)
    folder = tmp_path_factory.mktemp("partition")
    bed = Bed(
        folder,
        own_clocks=own_clocks,
        election_seconds=election_seconds,
        languages=languages,
        clocks_apart=clocks_apart,
    )
    with running_bed(bed):
        yield bed
