"""The random programs and faults."""

from collections import Counter
from random import Random

import pytest

from tests.histories.faults import fault
from tests.histories.programs import ROUNDS, Program, programs
from tests.histories.records import Kind

CLIENTS = 5
USERS = 6
SEEDS = range(50)


def of_seed(seed: int) -> list[Program]:
    return programs(Random(seed), clients=CLIENTS, users=USERS)  # noqa: S311 - repeatable, and no secret


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_repeats_programs(seed: int) -> None:
    assert of_seed(seed) == of_seed(seed)
    assert of_seed(seed) != of_seed(seed + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_clients_meet_in_the_same_rounds(seed: int) -> None:
    """Otherwise some would wait for others that never come."""
    for steps in zip(*of_seed(seed), strict=True):
        assert len({one[0].meeting for one in steps}) == 1
        assert not any(step.meeting for one in steps for step in one[1:])


def test_programs_have_about_eight_requests_of_every_kind() -> None:
    kinds = Counter(step.kind for seed in SEEDS for program in of_seed(seed) for steps in program for step in steps)
    assert kinds.keys() == set(Kind) - {Kind.SETTLE}
    assert ROUNDS <= kinds.total() / len(SEEDS) / CLIENTS < ROUNDS + 2


def test_a_seed_repeats_faults() -> None:
    several = [[str(fault(random)) for _ in range(100)] for random in (Random(1), Random(1))]  # noqa: S311
    assert several[0] == several[1]
    kinds = {text.partition("(")[0] for text in several[0]}
    assert kinds == {"FailPoint", "Election", "Freeze", "Kill"}
