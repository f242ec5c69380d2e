"""Tests that no ended session is accepted for long after its acknowledged end, whatever the network does."""

import pytest

from tests.partition.bed import Bed
from tests.partition.conftest import Note
from tests.partition.faults import FAULTS, Fault
from tests.partition.trials import LIMIT_SECONDS, TRIALS, Trial, summary


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_ended_session_is_rejected_in_time(bed: Bed, fault: Fault, note: Note) -> None:
    """By every worker of every service, also after healing; an active session is accepted then."""
    assert_rejected_in_time(bed, fault, note)


def assert_rejected_in_time(bed: Bed, fault: Fault, note: Note) -> None:
    """Run the trials of a fault and fail if a session was accepted for too long."""
    trials = [Trial(bed, fault) for _ in range(TRIALS)]
    try:
        for trial in trials:
            trial.run()
    finally:
        note(summary(trials))
    assert not [text for trial in trials for text in trial.wrong]
    seconds = [trial.seconds for trial in trials if trial.seconds is not None]
    assert seconds, "no end of a session was acknowledged"
    assert max(seconds) <= LIMIT_SECONDS
