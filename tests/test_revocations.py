"""Every worker follows revocations in time, without a query for each request."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from bson import Timestamp
from pymongo import MongoClient, monitoring
from pymongo.database import Database as Mongo
from pymongo.errors import NetworkTimeout

from app.database.client import Database
from app.database.proven import ProvenReader
from app.models.sessions import FEED_PAGE, INDEXES, Device, Sessions
from app.models.users import INDEXES as USER_INDEXES
from app.models.users import User
from app.security.revocations import MARGIN_SECONDS, Revocations
from config import Config
from tests.conftest import Actor, Document, Service

USER = User.new("user", "hash")
DEVICE = Device("127.0.0.1", "test")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a stopped clock."""
    return Clock()


class Feed:
    """A feed whose pages the test sets. It records from which place each look reads, and whether it is proven."""

    def __init__(self) -> None:
        self.ended: list[tuple[Timestamp, str]] = []
        self.failing = False
        self.isolated = False  # an isolated primary answers reads, but proves nothing
        self.looks: list[tuple[int, bool]] = []

    async def ended_since(self, since: Timestamp, *, proven: bool) -> list[tuple[Timestamp, str]]:
        """Return everything from a place on."""
        self.looks.append((since.time, proven))
        if self.failing or (proven and self.isolated):
            raise NetworkTimeout
        return [entry for entry in self.ended if entry[0] >= since]


def follower(sessions: Any, clock: Clock) -> Revocations:
    """Return the revocations of another worker."""
    return Revocations(sessions, stale_seconds=10, lifetime_seconds=900, overlap_seconds=3, clock=clock)


@pytest.fixture
def sessions(service: Service) -> Sessions:
    """Return the service's sessions, for use on its event loop."""
    sessions: Sessions = service.app.ctx.sessions
    return sessions


def test_another_worker_sees_a_logout_at_its_next_poll(
    service: Service, sessions: Sessions, alice: Actor, clock: Clock
) -> None:
    other = follower(sessions, clock)
    service.run(other.catch_up())
    assert alice.claims["sid"] not in other
    alice.post("/auth/logout")
    service.run(other.catch_up())
    assert alice.claims["sid"] in other


def test_a_worker_that_starts_later_reads_all_revocations(
    service: Service, sessions: Sessions, alice: Actor, clock: Clock
) -> None:
    alice.post("/auth/logout-all")
    other = follower(sessions, clock)
    service.run(other.catch_up())
    assert alice.claims["sid"] in other


def test_revocations_are_stale_before_the_first_poll_and_long_after_the_last(
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


def test_a_protected_route_returns_503_while_revocations_are_stale(
    service: Service, alice: Actor, clock: Clock
) -> None:
    known = service.app.ctx.authenticator._revocations
    service.app.ctx.authenticator._revocations = follower(known._sessions, clock)
    try:
        response = alice.get("/tests/secret")
        assert (response.status_code, response.json()["code"]) == (503, "revocations_stale")
        assert "retry-after" in response.headers
        assert service("GET", "/tests/secret", token="x").status_code == 401, "an invalid token is still rejected"
        assert service("GET", "/tests/hello").status_code == 200
    finally:
        service.app.ctx.authenticator._revocations = known


def test_entries_are_removed_when_no_access_token_can_be_valid(clock: Clock) -> None:
    feed = Feed()

    async def story() -> None:
        revocations = follower(feed, clock)
        feed.ended = [(Timestamp(1, 1), "first")]
        await revocations.catch_up()
        feed.ended.clear()
        clock.now += 100
        revocations.add("second")
        clock.now = 1000 + 900 + MARGIN_SECONDS - 1
        await revocations.catch_up()
        assert "first" in revocations
        clock.now += 1
        await revocations.catch_up()
        assert ("first" in revocations, "second" in revocations, len(revocations)) == (False, True, 1)

    asyncio.run(story())


def test_an_end_that_becomes_visible_late_is_not_skipped(clock: Clock) -> None:
    """An end gets its place when it is written. One that is acknowledged later has an earlier place than others."""
    feed = Feed()

    async def story() -> None:
        revocations = follower(feed, clock)
        feed.ended = [(Timestamp(5000, 3), "a")]
        await revocations.catch_up()
        clock.now += 2.9
        feed.ended.insert(0, (Timestamp(4990, 1), "late"))
        await revocations.catch_up()
        assert "late" in revocations

    asyncio.run(story())


def test_a_place_far_ahead_does_not_hide_later_ends(clock: Clock) -> None:
    """The clock of a database may jump, so the places of ends that are written together may be far apart."""
    feed = Feed()

    async def story() -> None:
        revocations = follower(feed, clock)
        feed.ended = [(Timestamp(5000, 1), "a"), (Timestamp(8600, 1), "an hour ahead")]
        await revocations.catch_up()
        clock.now += 1
        feed.ended.insert(1, (Timestamp(5000, 2), "late"))
        await revocations.catch_up()
        assert "late" in revocations

    asyncio.run(story())


def test_nothing_is_read_again_when_no_end_can_be_missing(clock: Clock) -> None:
    """Otherwise a mass logout would be read every second until its sessions are removed."""
    feed = Feed()
    feed.ended = [(Timestamp(5000, 7), "a")]

    async def story() -> None:
        revocations = follower(feed, clock)
        for _ in range(8):
            await revocations.catch_up()
            clock.now += 1

    asyncio.run(story())
    assert [since for since, _ in feed.looks] == [0] * 4 + [5000] * 4


def test_an_unproven_look_does_not_move_the_place(clock: Clock) -> None:
    """What an isolated primary shows is old, so ends that others acknowledged meanwhile may have earlier places."""
    feed = Feed()

    async def story() -> None:
        revocations = follower(feed, clock)
        await revocations.catch_up()
        feed.isolated = True
        feed.ended = [(Timestamp(5000, 7), "a")]
        for _ in range(30):
            clock.now += 1
            with suppress(NetworkTimeout):
                await revocations.catch_up()
        feed.isolated = False
        feed.ended.insert(0, (Timestamp(4000, 1), "acknowledged elsewhere"))
        await revocations.catch_up()
        assert "acknowledged elsewhere" in revocations

    asyncio.run(story())


def test_a_failed_look_is_not_fresh_and_loses_no_place(clock: Clock) -> None:
    feed = Feed()
    feed.ended = [(Timestamp(5000, 1), "a")]

    async def story() -> None:
        revocations = follower(feed, clock)
        for _ in range(6):
            await revocations.catch_up()
            clock.now += 1
        feed.failing = True
        clock.now += 5
        with pytest.raises(NetworkTimeout):
            await revocations.catch_up()
        clock.now += 6
        assert revocations.stale(), "a failed look does not count"
        feed.failing = False
        await revocations.catch_up()
        assert not revocations.stale()

    asyncio.run(story())
    assert [since for since, _ in feed.looks[-2:]] == [5000, 5000]


def test_only_a_proven_look_makes_the_worker_fresh(clock: Clock) -> None:
    """What an isolated primary shows ends sessions, but proves nothing."""
    feed = Feed()

    async def story() -> None:
        revocations = follower(feed, clock)
        await revocations.catch_up()
        feed.isolated = True
        feed.ended = [(Timestamp(5000, 1), "a")]
        clock.now += 1
        await revocations.catch_up()
        assert "a" in revocations
        assert revocations.age() == 1
        clock.now += 9.1
        assert revocations.stale()
        with pytest.raises(NetworkTimeout):
            await revocations.catch_up()
        assert revocations.stale()

    asyncio.run(story())


def test_a_worker_is_fresh_from_the_moment_at_which_a_look_begins(clock: Clock) -> None:
    """Ends that are acknowledged while the look is on its way are not part of it."""

    class Slow(Feed):
        async def ended_since(self, since: Timestamp, *, proven: bool) -> list[tuple[Timestamp, str]]:
            clock.now += 4
            return await super().ended_since(since, proven=proven)

    async def story() -> None:
        revocations = follower(Slow(), clock)
        await revocations.catch_up()
        assert revocations.age() == 4

    asyncio.run(story())


def test_a_few_looks_within_the_stale_time_are_proven(clock: Clock) -> None:
    feed = Feed()

    async def story() -> None:
        revocations = follower(feed, clock)
        for _ in range(20):
            await revocations.catch_up()
            clock.now += 0.5
        assert not revocations.stale()

    asyncio.run(story())
    assert [number for number, (_, proven) in enumerate(feed.looks) if proven] == [0, 5, 10, 15]


def test_more_than_a_page_is_read_page_by_page(service: Service, mongo_uri: str, clock: Clock) -> None:
    """Times in the feed are unique, even within one write that ends many sessions."""

    async def story() -> None:
        database = Database(f"{mongo_uri}_pages", default_name="x", timeout_seconds=10)
        try:
            feed = ProvenReader(f"{mongo_uri}_pages", default_name="x", collection="sessions", seconds=10)
            many = Sessions(
                database.collection("sessions", INDEXES),
                feed,
                idle_seconds=99,
                absolute_seconds=99,
                grace_seconds=1,
                per_user=50,
            )
            await database.prepare()
            documents = [{"_id": str(number), "user_id": "u", "generation": 0} for number in range(FEED_PAGE + 10)]
            await database.collection("sessions", INDEXES)._collection.insert_many(documents)
            await many.end_all("u", 1)
            other = follower(many, clock)
            await other.catch_up()
            assert len(other) == FEED_PAGE + 10
        finally:
            await feed.close()
            await database._client.drop_database(database._database)
            await database.close()

    service.run(story())


class Commands(monitoring.CommandListener):
    """A listener that records the commands of a client."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Record the command."""
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Ignore."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Ignore."""


def test_a_protected_request_sends_no_database_command(config: Config, alice: Actor) -> None:
    """The first request with a token sends none, and neither do later ones.

    Only the poll at the start reads the database.
    """
    slow_polling = config.model_copy(update={"REVOCATION_POLL_SECONDS": 60, "REVOCATION_STALE_SECONDS": 120})
    commands = Commands()
    monitoring.register(commands)
    with Service(slow_polling) as service:
        assert "find" in commands.names
        commands.names.clear()
        for _ in range(50):
            assert service("GET", "/tests/secret", token=alice.tokens["access_token"]).status_code == 200
        assert commands.names == []


@pytest.fixture
def mongo(mongo_uri: str) -> Iterator[Mongo[Document]]:
    """Connect to the database directly."""
    with MongoClient[Document](mongo_uri) as client:
        yield client.get_default_database()


def test_the_query_of_the_feed_uses_its_index(alice: Actor, mongo: Mongo[Document]) -> None:
    alice.post("/auth/logout")
    plan = mongo.sessions.find({"ended": {"$gte": Timestamp(0, 0)}}, {"ended": 1}).sort("ended").explain()
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    assert "ended_1__id_1" in str(plan["queryPlanner"]["winningPlan"])


def test_indexes_exist_and_can_be_created_again_concurrently(
    service: Service, mongo: Mongo[Document], mongo_uri: str
) -> None:
    service("GET", "/health/ready")
    users, sessions = mongo.users.index_information(), mongo.sessions.index_information()
    assert users["canonical_name_1"]["unique"] is True
    assert sessions["expires_at_1"]["expireAfterSeconds"] >= 600
    assert sessions["ended_at_1"]["expireAfterSeconds"] > 3600

    async def create_concurrently() -> None:
        workers = [Database(mongo_uri, default_name="x", timeout_seconds=5) for _ in range(4)]
        await asyncio.gather(*(worker.collection("users", USER_INDEXES).prepare() for worker in workers))
        await asyncio.gather(*(worker.collection("sessions", INDEXES).prepare() for worker in workers))
        for worker in workers:
            await worker.close()

    service.run(create_concurrently())
    assert mongo.users.index_information() == users


def test_session_and_token_ids_come_from_a_cryptographic_generator(
    alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int | None] = []
    token_bytes = secrets.token_bytes

    def recording_token_bytes(number: int | None = None) -> bytes:
        lengths.append(number)
        return token_bytes(number)

    monkeypatch.setattr(secrets, "token_bytes", recording_token_bytes)
    again = alice.log_in()
    assert lengths == [16, 16], "one session id and one token id, 128 bits each"
    assert {len(again.claims[name]) for name in ("sid", "jti")} == {22}


def test_a_session_id_is_random(service: Service, sessions: Sessions) -> None:
    async def story() -> list[str]:
        return [(await sessions.open(USER, DEVICE, amr=["pwd"])).id for _ in range(5)]

    ids = service.run(story())
    assert len({*ids, secrets.token_urlsafe(16)}) == 6
    assert {len(name) for name in ids} == {22}
