"""The search, compared with one that has none of its shortcuts, on small random histories."""

from random import Random
from typing import Any

import pytest

from app.models.users import Access
from tests.histories.linearizability import Search
from tests.histories.model import START, Model, Phase, State
from tests.histories.records import (
    INSUFFICIENT_SCOPE,
    NOT_FOUND,
    OK,
    REUSED,
    SESSION_ENDED,
    UNKNOWN,
    WRONG_CREDENTIALS,
    History,
    Kind,
    Operation,
    UserSeen,
)

GRACE_SECONDS = 1
USERS = {"alice": Access.USER, "ann": Access.ADMIN}
OUTCOMES: dict[Kind, list[str]] = {
    Kind.LOGIN: [OK, WRONG_CREDENTIALS],
    Kind.REFRESH: [OK, OK, UNKNOWN, SESSION_ENDED, REUSED],
    Kind.LOGOUT: [OK, UNKNOWN, SESSION_ENDED],
    Kind.LOGOUT_ALL: [OK, UNKNOWN, SESSION_ENDED],
    Kind.END_SESSION: [OK, UNKNOWN, SESSION_ENDED, NOT_FOUND],
    Kind.PASSWORD: [OK, UNKNOWN, SESSION_ENDED, WRONG_CREDENTIALS],
    Kind.ME: [OK, SESSION_ENDED],
    Kind.PATCH_USER: [OK, UNKNOWN, SESSION_ENDED, INSUFFICIENT_SCOPE],
}


class PlainSearch:
    """Tries every order in which no operation follows one that was invoked after its completion."""

    def __init__(self, history: History) -> None:
        self._model = Model(history, grace_seconds=GRACE_SECONDS)
        self._operations = history.operations

    def explains(self) -> bool:
        """Return whether an order explains all outcomes."""
        return self._explains(self._model.initial(), dict.fromkeys(self._operations, START))

    def _explains(self, state: State, phases: dict[Operation, Phase]) -> bool:
        if not any(one.known for one in phases):
            return True
        first_completed = min(one.completed for one in phases)
        for one, phase in phases.items():
            move = self._model.move(one, phase, state) if one.invoked <= first_completed else None
            if move is None:
                continue
            rest = {other: its for other, its in phases.items() if other is not one}
            if self._explains(move.state, rest if move.phase is None else rest | {one: move.phase}):
                return True
        return False


def random_history(random: Random) -> History:
    """Return a history of a few concurrent operations after two logins, with random outcomes."""
    operations = [
        Operation(number, Kind.LOGIN, 0, 0, OK, user=user, opened=f"of-{user}", scope=access)
        for number, (user, access) in enumerate(USERS.items())
    ]
    opened = {one.opened: one.user for one in operations}
    for number in range(len(operations), len(operations) + random.randint(2, 5)):
        kind = random.choice(list(OUTCOMES))
        session = random.choice(list(opened))
        invoked = random.uniform(1, 4)
        outcome = random.choice(OUTCOMES[kind])
        parameters = random_parameters(random, kind, outcome, number)
        ended = invoked + random.choice((0.1, 1, 3))
        operations.append(
            Operation(number, kind, invoked, ended, outcome, user=opened[session], session=session, **parameters)
        )
    return History(USERS, tuple(operations))


def random_parameters(random: Random, kind: Kind, outcome: str, number: int) -> dict[str, Any]:
    """Return parameters and results of a random operation."""
    match kind:
        case Kind.LOGIN:
            return {"password": random.randint(0, 1)}
        case Kind.REFRESH:
            return {"counter": random.choice((0, 0, 1))}
        case Kind.END_SESSION:
            return {"target": random.choice(("of-alice", "of-ann"))}
        case Kind.PASSWORD:
            return {"new_password": 1} | ({"opened": f"of-{number}", "scope": Access.USER} if outcome == OK else {})
        case Kind.ME:
            return {"user_seen": UserSeen(Access.USER, random.random() < 0.3)}
        case Kind.PATCH_USER:
            seen = UserSeen(Access.USER, disabled=True) if outcome == OK else None
            return {"target": "alice", "access": Access.USER, "disabled": True, "user_seen": seen}
    return {}


@pytest.mark.parametrize("seed", range(10))
def test_the_search_finds_what_a_plain_search_finds(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - repeatable, and no secret
    explained = 0
    for _ in range(100):
        history = random_history(random)
        expected = PlainSearch(history).explains()
        search = Search(Model(history, grace_seconds=GRACE_SECONDS), history.operations)
        assert (search.run() is None) == expected, history
        explained += expected
    assert 10 < explained < 90, "both results must be common"
