"""Random histories of concurrent requests under faults."""

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.histories.batches import HISTORIES, Batch, Batches
from tests.histories.excerpts import problems
from tests.histories.records import OK, UNKNOWN
from tests.histories.services import running_system
from tools.local_mongo import ReplicaSet

SEED = os.environ.get("HISTORIES_SEED")  # repeats a batch
NUMBER = int(os.environ.get("HISTORIES", HISTORIES if SEED else 3 * HISTORIES))
UNDECIDED = 0.01  # the share of histories that the search may give up

Note = Callable[[str], None]


def test_an_order_of_operations_explains_every_history(
    replica_set: ReplicaSet, note: Note, capsys: pytest.CaptureFixture[str]
) -> None:
    first = int(SEED or secrets.randbits(32))
    outcomes, failures, began = Counter[str](), list[str](), time.monotonic()
    with running_system(replica_set) as system:
        batches = Batches(system)
        for seed in range(first, first + -(-NUMBER // HISTORIES)):
            batch = batches.run(seed)
            outcomes += counted(batch)
            found = [text for number in range(HISTORIES) for text in problems(batch, number, outcomes)]
            failures += found
            with capsys.disabled():
                sys.stdout.write("".join(f"\n\n{text}\n" for text in found))  # now, since the other batches take long
                sys.stdout.write(
                    f"\nseed {seed}: {summary(outcomes, time.monotonic() - began)}; {len(failures)} failures"
                )
    note(f"seeds from {first} on: {summary(outcomes, time.monotonic() - began)}")
    assert not failures, "\n\n".join(failures)
    assert outcomes["undecided"] <= max(1, UNDECIDED * outcomes["histories"])


def counted(batch: Batch) -> Counter[str]:
    """Count the histories and the outcomes of a batch."""
    outcomes = Counter(
        one.outcome if one.outcome in (OK, UNKNOWN) else "refused"
        for history in batch.histories
        for one in history.operations
    )
    outcomes.update(histories=len(batch.histories), operations=outcomes.total())
    return outcomes


def summary(outcomes: Counter[str], seconds: float) -> str:
    """Return a line with the numbers."""
    numbers = ", ".join(
        f"{outcomes[name]} {name}" for name in ("histories", "undecided", "operations", OK, "refused", UNKNOWN)
    )
    return f"{numbers} in {seconds:.0f} s"
