"""Tests that a machine that was paused with its clocks, and resumes as an old primary, revives no ended session."""

from collections.abc import Collection

import pytest

from tests.partition.bed import Bed
from tests.partition.conftest import Note
from tests.partition.faults import PAUSED_MACHINE
from tests.partition.trials import TRIALS, Trial, assert_rejected_in_time


@pytest.fixture(scope="module")
def own_clocks() -> Collection[str]:
    """Let the clocks of m1 stand still while it is paused."""
    return ("m1",)


def test_an_ended_session_is_rejected_in_time_although_a_primary_resumes(bed: Bed, note: Note) -> None:
    assert_rejected_in_time([Trial(bed, PAUSED_MACHINE) for _ in range(TRIALS)], note)
