"""Histories of versions of the service with seeded defects, which the checker must find."""

import secrets
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.histories.batches import HISTORIES, Batches
from tests.histories.defects import DEFECTS
from tests.histories.excerpts import problems
from tests.histories.services import running_system
from tools.local_mongo import ReplicaSet

MOST = 25 * HISTORIES  # histories until a seeded defect must be found

Note = Callable[[str], None]


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_checker_finds_a_seeded_defect(replica_set: ReplicaSet, defect: str, note: Note) -> None:
    began = time.monotonic()
    with running_system(replica_set, defect) as system:
        batches = Batches(system)
        for number in range(MOST):
            if number % HISTORIES == 0:
                batch = batches.run(secrets.randbits(32))
            if found := problems(batch, number % HISTORIES, Counter()):
                shown, _, _ = found[0].partition(" Faults:")
                note(f"found in history {number + 1} after {time.monotonic() - began:.0f} s: {shown}")
                return
    pytest.fail(f"not found in {MOST} histories")
