"""Random histories of concurrent requests under faults, of the service and of versions with seeded defects."""

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.histories.batches import HISTORIES, Batch, Batches
from tests.histories.checker import check
from tests.histories.defects import DEFECTS
from tests.histories.excerpts import excerpt
from tests.histories.records import OK, UNKNOWN
from tests.histories.services import PERIODS, running_replica_set, running_system
from tools.local_mongo import ReplicaSet

SEED = os.environ.get("HISTORIES_SEED")  # repeats a batch
NUMBER = int(os.environ.get("HISTORIES", HISTORIES if SEED else 3 * HISTORIES))
MOST = 25 * HISTORIES  # histories until a seeded defect must be found
UNDECIDED = 0.01  # the share of histories that the search may give up

Note = Callable[[str], None]


@pytest.fixture(scope="module")
def replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """Run the database of all tests here."""
    with running_replica_set(tmp_path_factory.mktemp("mongodb")) as replica_set:
        yield replica_set


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


def problems(batch: Batch, number: int, outcomes: Counter[str]) -> list[str]:
    """Return a description of each violation in a history of a batch, and count whether it is undecided."""
    history = batch.histories[number]
    verdict = check(history, PERIODS)
    outcomes["undecided"] += verdict.undecided
    where = f"History {number} of HISTORIES_SEED={batch.seed}"
    return [f"{where}\n{excerpt(one, history, batch.faults)}" for one in verdict.violations]


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
