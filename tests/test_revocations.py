"""Revocations: every worker knows, in time and without asking for each request."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from bson import Timestamp
from pymongo import MongoClient, monitoring
from pymongo.database import Database as Mongo
from pymongo.errors import ConnectionFailure

from app.database.client import Database
from app.models.sessions import FEED_PAGE, INDEXES, Device, Sessions
from app.models.users import INDEXES as USER_INDEXES
from app.models.users import User
from app.security.revocations import MARGIN_SECONDS, Revocations
from config import Config
from tests.conftest import Actor, Document, Service

SOMEBODY = User.new("somebody", "hash")
SOMEWHERE = Device("127.0.0.1", "test")


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock at a standstill."""
    return Clock()


def follower(sessions: Any, clock: Clock) -> Revocations:
    """Give another worker's revocations."""
    return Revocations(sessions, stale_seconds=10, lifetime_seconds=900, overlap_seconds=3, clock=clock)


@pytest.fixture
def sessions(service: Service) -> Sessions:
    """Give the service's own sessions, to be used on its loop."""
    sessions: Sessions = service.app.ctx.sessions
    return sessions


def test_a_logout_shows_to_a_follower_at_its_next_look(
    service: Service, sessions: Sessions, alice: Actor, clock: Clock
) -> None:
    other = follower(sessions, clock)
    service.run(other.catch_up())
    assert alice.claims["sid"] not in other
    alice.post("/auth/logout")
    service.run(other.catch_up())
    assert alice.claims["sid"] in other


def test_a_follower_that_comes_later_learns_everything(
    service: Service, sessions: Sessions, alice: Actor, clock: Clock
) -> None:
    alice.post("/auth/logout-all")
    other = follower(sessions, clock)
    service.run(other.catch_up())
    assert alice.claims["sid"] in other


def test_before_the_first_look_and_long_after_the_last_nothing_is_certain(
    service: Service, sessions: Sessions, clock: Clock
) -> None:
    other = follower(sessions, clock)
    assert other.stale()
    service.run(other.catch_up())
    clock.now += 10
    assert not other.stale()
    clock.now += 0.1
    assert other.stale()
    service.run(other.catch_up())
    assert not other.stale()


def test_a_protected_route_refuses_rather_than_guess(service: Service, alice: Actor, clock: Clock) -> None:
    known = service.app.ctx.authenticator._revocations
    service.app.ctx.authenticator._revocations = follower(known._sessions, clock)
    try:
        response = alice.get("/tests/secret")
        assert (response.status_code, response.json()["code"]) == (503, "revocations_stale")
        assert "retry-after" in response.headers
        assert service("GET", "/tests/secret", token="x").status_code == 401, "garbage is refused all the same"
        assert service("GET", "/tests/hello").status_code == 200
    finally:
        service.app.ctx.authenticator._revocations = known


def test_entries_leave_when_no_access_token_can_be_alive(clock: Clock) -> None:
    class Feed:
        async def ended_since(self, since: Timestamp) -> list[tuple[Timestamp, str]]:
            return [(Timestamp(1, 1), "first")] if since.time == 0 and clock.now == 1000 else []

    async def story() -> None:
        revocations = follower(Feed(), clock)
        await revocations.catch_up()
        clock.now += 100
        revocations.add("second")
        clock.now = 1000 + 900 + MARGIN_SECONDS - 1
        await revocations.catch_up()
        assert "first" in revocations
        clock.now += 1
        await revocations.catch_up()
        assert ("first" in revocations, "second" in revocations, len(revocations)) == (False, True, 1)

    asyncio.run(story())


def test_each_look_goes_back_over_writes_that_were_on_their_way(clock: Clock) -> None:
    """A write gets its place when it begins; one that shows late has an older place than others."""
    asked: list[Timestamp] = []
    feed = [[(Timestamp(5000, 3), "a")], [(Timestamp(4999, 1), "late"), (Timestamp(5000, 3), "a")]]

    class Feed:
        async def ended_since(self, since: Timestamp) -> list[tuple[Timestamp, str]]:
            asked.append(since)
            return feed[len(asked) - 1]

    async def story() -> None:
        revocations = follower(Feed(), clock)
        await revocations.catch_up()
        await revocations.catch_up()
        assert "late" in revocations

    asyncio.run(story())
    assert asked == [Timestamp(0, 0), Timestamp(4996, 0)]


def test_when_nothing_can_be_on_its_way_any_more_nothing_is_read_again(clock: Clock) -> None:
    """Else one mass logout would be read every second until its sessions are removed."""
    asked: list[Timestamp] = []

    class Feed:
        async def ended_since(self, since: Timestamp) -> list[tuple[Timestamp, str]]:
            asked.append(since)
            return [(Timestamp(5000, 7), "a")]

    async def story() -> None:
        revocations = follower(Feed(), clock)
        for _ in range(8):
            await revocations.catch_up()
            clock.now += 1

    asyncio.run(story())
    assert asked == [Timestamp(0, 0), *[Timestamp(4996, 0)] * 5, *[Timestamp(5000, 7)] * 2]


def test_after_a_failure_everything_is_read_anew(clock: Clock) -> None:
    """The database may have restarted with its clock set back."""
    asked: list[Timestamp] = []

    class Feed:
        async def ended_since(self, since: Timestamp) -> list[tuple[Timestamp, str]]:
            asked.append(since)
            if len(asked) == 2:
                raise ConnectionFailure
            return [(Timestamp(5000, 1), "a")]

    async def story() -> None:
        revocations = follower(Feed(), clock)
        await revocations.catch_up()
        clock.now += 5
        with pytest.raises(ConnectionFailure):
            await revocations.catch_up()
        clock.now += 6
        assert revocations.stale(), "a failed look does not count"
        await revocations.catch_up()
        assert not revocations.stale()

    asyncio.run(story())
    assert [since.time for since in asked] == [0, 4996, 0]


def test_more_than_a_page_is_read_page_by_page(service: Service, mongo_uri: str, clock: Clock) -> None:
    """Times in the feed are unique, even within one write that ends many sessions."""

    async def story() -> None:
        database = Database(f"{mongo_uri}_pages", timeout_seconds=10)
        try:
            many = Sessions(
                database.collection("sessions", INDEXES), idle_seconds=99, absolute_seconds=99, grace_seconds=1
            )
            await database.prepare()
            documents = [{"_id": str(number), "user_id": "u", "generation": 0} for number in range(FEED_PAGE + 10)]
            await database.collection("sessions", INDEXES)._collection.insert_many(documents)
            await many.end_all("u", 1)
            other = follower(many, clock)
            await other.catch_up()
            assert len(other) == FEED_PAGE + 10
        finally:
            await database._client.drop_database(database._database)
            await database.close()

    service.run(story())


class Commands(monitoring.CommandListener):
    """Remember the commands that a client sends."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Remember one."""
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Ignore."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Ignore."""


def test_a_protected_request_asks_the_database_nothing(config: Config, alice: Actor) -> None:
    """Neither the first with a token nor any after it; the one look of the start is the only one."""
    seldom = config.model_copy(update={"REVOCATION_POLL_SECONDS": 60, "REVOCATION_STALE_SECONDS": 120})
    commands = Commands()
    monitoring.register(commands)
    with Service(seldom) as quiet:
        assert "find" in commands.names
        commands.names.clear()
        for _ in range(50):
            assert quiet("GET", "/tests/secret", token=alice.tokens["access_token"]).status_code == 200
        assert commands.names == []


@pytest.fixture
def mongo(mongo_uri: str) -> Iterator[Mongo[Document]]:
    """Look at what the server itself knows."""
    with MongoClient[Document](mongo_uri) as client:
        yield client.get_default_database()


def test_the_feed_is_read_through_its_index(alice: Actor, mongo: Mongo[Document]) -> None:
    alice.post("/auth/logout")
    plan = mongo.sessions.find({"ended": {"$gte": Timestamp(0, 0)}}, {"ended": 1}).sort("ended").explain()
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    assert "ended_1__id_1" in str(plan["queryPlanner"]["winningPlan"])


def test_indexes_are_there_and_making_them_again_does_no_harm(
    service: Service, mongo: Mongo[Document], mongo_uri: str
) -> None:
    service("GET", "/health/ready")
    users, sessions = mongo.users.index_information(), mongo.sessions.index_information()
    assert users["canonical_name_1"]["unique"] is True
    assert sessions["expires_at_1"]["expireAfterSeconds"] >= 600
    assert sessions["ended_at_1"]["expireAfterSeconds"] > 3600

    async def at_once() -> None:
        workers = [Database(mongo_uri, timeout_seconds=5) for _ in range(4)]
        await asyncio.gather(*(worker.collection("users", USER_INDEXES).prepare() for worker in workers))
        await asyncio.gather(*(worker.collection("sessions", INDEXES).prepare() for worker in workers))
        for worker in workers:
            await worker.close()

    service.run(at_once())
    assert mongo.users.index_information() == users


def test_names_that_must_not_be_guessed_come_from_the_systems_generator(
    alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    token_bytes = secrets.token_bytes

    def give_and_tell(number: int | None = None) -> bytes:
        asked.append(number)
        return token_bytes(number)

    monkeypatch.setattr(secrets, "token_bytes", give_and_tell)
    again = alice.log_in()
    assert asked == [16, 16], "of the session's id and the token's, 128 bits each"
    assert {len(again.claims[name]) for name in ("sid", "jti")} == {22}


def test_a_session_id_is_random(service: Service, sessions: Sessions) -> None:
    async def story() -> list[str]:
        return [(await sessions.open(SOMEBODY, SOMEWHERE)).id for _ in range(5)]

    ids = service.run(story())
    assert len({*ids, secrets.token_urlsafe(16)}) == 6
    assert {len(name) for name in ids} == {22}
