"""Seeded random programs: what the clients of a history do.

A program has rounds. In some rounds each client sends any request; in the others all clients meet, and send requests
about the same user or session at the same time, because most defects need that.
"""

from dataclasses import dataclass, replace
from random import Random

from tests.histories.records import ADMINISTRATION, Kind

ROUNDS = 8
ADMINISTRATORS = 2  # the first users of a history
ADMINISTRATORS_MEET_FROM = 3  # the first round in which one administrator may demote the other
JITTER_SECONDS = (0.0, 0.0, 0.003, 0.01, 0.03)
PAUSE_SECONDS = (0.0, 0.02, 0.05, 0.1, 0.3)
AGING_SECONDS = 0.7  # twice this time is longer than the grace period
PATIENCE_SECONDS = 8.0
DEMOTION = 0.2  # the greatest value of a step that demotes a user

Weights = dict[Kind, int]
ANYTHING: Weights = {
    Kind.REFRESH: 22,
    Kind.SECRET: 12,
    Kind.LOGIN: 9,
    Kind.LOGOUT: 8,
    Kind.ME: 6,
    Kind.SESSIONS: 6,
    Kind.END_SESSION: 6,
    Kind.GET_USER: 6,
    Kind.PATCH_USER: 6,
    Kind.LOGOUT_ALL: 4,
    Kind.PASSWORD: 4,
    Kind.REGISTER: 3,
    Kind.DELETE_USER: 1,
    Kind.DELETE_ME: 1,
}
MEETINGS: list[tuple[int, Weights]] = [
    (4, {Kind.REFRESH: 10, Kind.LOGOUT: 2, Kind.END_SESSION: 2, Kind.LOGOUT_ALL: 1, Kind.SECRET: 1}),
    (3, {Kind.LOGIN: 5, Kind.LOGOUT_ALL: 2, Kind.PASSWORD: 2, Kind.PATCH_USER: 2, Kind.REFRESH: 1}),
    (2, {Kind.LOGOUT_ALL: 3, Kind.PASSWORD: 2, Kind.END_SESSION: 3, Kind.DELETE_ME: 1, Kind.PATCH_USER: 2}),
    (1, {Kind.DELETE_USER: 2, Kind.PATCH_USER: 2, Kind.LOGOUT_ALL: 4, Kind.REFRESH: 4}),
    (1, {Kind.REGISTER: 6, Kind.LOGIN: 2, Kind.DELETE_ME: 1}),
]
ADMINISTRATORS_MEET: Weights = {Kind.PATCH_USER: 6, Kind.DELETE_USER: 1, Kind.GET_USER: 1, Kind.LOGOUT_ALL: 1}


@dataclass(frozen=True)
class Step:
    """A request of a client. What depends on earlier responses, such as the session, is chosen by a number."""

    kind: Kind
    pause: float  # seconds before the request
    service: int
    user: int  # who sends the request
    session: int  # chooses a session of this user
    other: int  # the user or chooses the session that the request is about
    value: float  # from 0 to 1, chooses the password, the age of the token or the change of the user
    patience: float  # seconds after which the client closes the connection
    meeting: bool = False  # whether all clients send this request at the same time
    again: bool = False  # whether the client sends the refresh token of its last refresh again


Program = list[list[Step]]  # the steps of each round


def programs(random: Random, *, clients: int, users: int) -> list[Program]:
    """Return a program for each client.

    The first users are administrators, then others; the last one is a name that is free at the start.
    """
    rounds = [_round(random, number, clients, users) for number in range(ROUNDS)]
    return [[steps[client] for steps in rounds] for client in range(clients)]


def _round(random: Random, number: int, clients: int, users: int) -> list[list[Step]]:
    """Return the steps of each client in one round."""
    choice = random.random()
    if choice < 0.4:
        return [[_step(random, ANYTHING, random.randrange(users))] for _ in range(clients)]
    if choice < 0.5:
        return _tokens_age(random, clients, users)
    if choice < 0.65 and number >= ADMINISTRATORS_MEET_FROM:
        return [[_against_administrator(random, client % ADMINISTRATORS)] for client in range(clients)]
    weights = random.choices([one for _, one in MEETINGS], [share for share, _ in MEETINGS])[0]
    user = users - 1 if Kind.REGISTER in weights else random.randrange(users)
    session = random.randrange(1000)
    return [[_step(random, weights, user, session)] for _ in range(clients)]


def _tokens_age(random: Random, clients: int, users: int) -> list[list[Step]]:
    """Return a round in which some clients send one refresh token several times, within its grace period and after."""
    user, session = random.randrange(users), random.randrange(1000)
    only_refresh = {Kind.REFRESH: 1}
    steps = []
    for _ in range(clients):
        first = replace(_step(random, only_refresh, user, session), value=0.0)
        later = replace(first, pause=AGING_SECONDS, again=True, meeting=False)
        steps.append([first, later, later] if random.random() < 0.4 else [_step(random, ANYTHING, user, session)])
    return steps


def _against_administrator(random: Random, user: int) -> Step:
    """Return a request of one administrator about the other."""
    step = _step(random, ADMINISTRATORS_MEET, user, session=0)
    return replace(step, user=user, other=1 - user, value=random.uniform(0, DEMOTION))


def _step(random: Random, weights: Weights, user: int, session: int | None = None) -> Step:
    """Return a request about a user; in a meeting also about one of the user's sessions."""
    kind = random.choices(list(weights), list(weights.values()))[0]
    sender, other = user, random.randrange(1000)
    if kind in ADMINISTRATION:
        sender, other = random.randrange(ADMINISTRATORS if random.random() < 0.85 else ADMINISTRATORS + 1), user
    any_session = random.randrange(1000)
    return Step(
        kind=kind,
        pause=random.choice(PAUSE_SECONDS if session is None else JITTER_SECONDS),
        service=random.randrange(2),
        user=sender,
        session=any_session if session is None or random.random() < 0.3 else session,
        other=other,
        value=random.random(),
        patience=random.uniform(0.005, 0.15) if random.random() < 0.08 else PATIENCE_SECONDS,
        meeting=session is not None,
    )
