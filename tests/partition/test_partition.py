"""Tests that no ended session is accepted for long after its acknowledged end, whatever the network does."""

import pytest

from tests.partition.bed import Bed
from tests.partition.conftest import Note
from tests.partition.faults import FAULTS, Fault
from tests.partition.trials import TRIALS, Trial, assert_rejected_in_time


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_ended_session_is_rejected_in_time(bed: Bed, fault: Fault, note: Note) -> None:
    """By every worker of every service, also after healing; an active session is accepted then."""
    assert_rejected_in_time([Trial(bed, fault) for _ in range(TRIALS)], note)
