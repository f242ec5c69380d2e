"""Tests that other services reject ended sessions in time, whatever happens to this one, its database and the network.

The wall clocks of the resource servers are five seconds behind those of the services, or ahead of them.
"""

from collections.abc import Collection

import pytest

from tests.partition.bed import Bed
from tests.partition.conftest import Note
from tests.partition.faults import FAULTS, FOLLOWING, Fault
from tests.partition.trials import TRIALS, Trial, assert_rejected_in_time
from tests.partition.verifiers import COMMANDS


@pytest.fixture(scope="module")
def languages() -> Collection[str]:
    """Run a resource server in each language for each service."""
    return COMMANDS


@pytest.fixture(scope="module")
def clocks_apart() -> float:
    """Let wall clocks differ."""
    return 5


@pytest.mark.parametrize("fault", [*FAULTS, *FOLLOWING], ids=lambda fault: fault.name)
def test_other_services_reject_an_ended_session_in_time(bed: Bed, fault: Fault, note: Note) -> None:
    assert_rejected_in_time([Trial(bed, fault, Bed.each_resource_server) for _ in range(TRIALS)], note)
