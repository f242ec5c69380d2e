"""The cost of many sessions: of one user, who has as many as the service allows, and of all other users."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import httpx

from bench.bench import Bench, alternate
from bench.database import PASSWORD, fill_sessions, fill_users, username
from bench.latency import BLOCKS, row, seconds
from bench.machine import BenchFailed
from bench.progress import Plan
from bench.results import Row
from bench.scale import Scale
from bench.servers import running
from bench.setup import Setup

EMPTY, FILLED = "sessions_of_few", "sessions_of_many"
TARGET = 1.2  # for the sessions of other users
# The requests of a visit, in this order.
REFRESH, LIST, LOGIN, LOGOUT = "POST /auth/refresh", "GET /auth/sessions", "POST /auth", "POST /auth/logout-all"
REQUESTS = (REFRESH, LIST, LOGIN, LOGOUT)


@dataclass(frozen=True)
class Case:
    """The sessions of a user who makes the requests, and the database of the other sessions."""

    database: str
    sessions: int


Blocks = dict[str, dict[str, list[float]]]  # the medians of all blocks, by request and case
ALONE, AMONG_OTHERS, MOST = "alone", "among others", "most"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return 1 for the preparation plus the number of blocks."""
    return Plan(1 + BLOCKS, 2 + scale.visits / 10)


def run(bench: Bench) -> None:
    """Measure visits of three cases in turn: with one session, the same among many others, and with many sessions."""
    most, others = bench.scale.user_sessions, bench.scale.other_sessions
    cases = {ALONE: Case(EMPTY, 1), AMONG_OTHERS: Case(FILLED, 1), MOST: Case(FILLED, most)}
    bench.step(f"insert {others:,} sessions")
    fill_sessions(bench.mongo_uri(FILLED), others)
    visitors = 2 * bench.scale.visits  # two cases share a database
    ids = {name: fill_users(bench.mongo_uri(name), visitors)[1:] for name in (EMPTY, FILLED)}
    settings = {"APP_SESSIONS_PER_USER": str(most)}
    with ExitStack() as stack:
        services = {name: bench.service(name, name, settings=settings) for name in ids}
        servers = {name: stack.enter_context(running(one, bench.folder)) for name, one in services.items()}
        clients = {
            name: stack.enter_context(httpx.Client(base_url=server.url, trust_env=False))
            for name, server in servers.items()
        }
        users = {name: enumerate(of_database) for name, of_database in ids.items()}
        bench.results.rows += _rows(_measure(bench, cases, clients, users), most, others)


def _measure(
    bench: Bench,
    cases: dict[str, Case],
    clients: dict[str, httpx.Client],
    users: Mapping[str, Iterator[tuple[int, str]]],
) -> Blocks:
    """Visit with another user each time, because a visit ends all sessions of its user."""
    blocks: Blocks = {request: {name: [] for name in cases} for request in REQUESTS}
    for block in range(BLOCKS):
        bench.step(f"sessions, block {block + 1} of {BLOCKS}")
        for name in alternate(cases, block):
            case = cases[name]
            visits = [
                _visit(bench, clients[case.database], case, *next(users[case.database]))
                for _ in range(bench.scale.visits // BLOCKS)
            ]
            for request in REQUESTS:
                blocks[request][name].append(median(visit[request] for visit in visits))
    return blocks


def _visit(bench: Bench, client: httpx.Client, case: Case, number: int, user_id: str) -> dict[str, float]:
    """Open the sessions of a user, and return the seconds of each request."""
    ids = fill_sessions(bench.mongo_uri(case.database), case.sessions, user_id=user_id)
    (refresh_token,) = bench.refresh_tokens(ids[:1])
    authorization = {"Authorization": f"Bearer {bench.signer.sign(user_id=user_id, session_id=ids[0])}"}
    refreshed = client.post("/auth/refresh", json={"refresh_token": refresh_token})
    listed = client.get("/auth/sessions", headers=authorization)
    if len(listed.raise_for_status().json()["sessions"]) != case.sessions:
        raise BenchFailed("the list of sessions is not complete")
    logged_in = client.post("/auth", json={"username": username(number), "password": PASSWORD})
    logged_out = client.post("/auth/logout-all", headers=authorization)
    return dict(zip(REQUESTS, map(seconds, (refreshed, listed, logged_in, logged_out)), strict=True))


def _rows(blocks: Blocks, most: int, others: int) -> list[Row]:
    """Compare the cases for each request."""
    of_user = [
        row(f"`{request}` with {most:,} sessions of the user / with 1", medians[MOST], medians[AMONG_OTHERS])
        for request, medians in blocks.items()
    ]
    of_others = [
        row(
            f"`{request}` with {others:,} sessions of other users / with none",
            medians[AMONG_OTHERS],
            medians[ALONE],
            target=TARGET,
        )
        for request, medians in blocks.items()
    ]
    return of_user + of_others
