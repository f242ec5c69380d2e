"""The feed of ended sessions: every end is in it, signed, and followers of any worker miss nothing."""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from bson import ObjectId, Timestamp
from pymongo.database import Database

from app.models.sessions import Sessions
from app.models.users import Access
from app.security import feed as feed_module
from app.security.feed import Cursor, Feed
from app.security.revocations import MARGIN_SECONDS, Revocations
from config import Config
from tests.conftest import PASSWORD, Actor, Document, Service, drop_database, registered
from tests.mail import NEW_PASSWORD, Owner
from tests.mailbox import Mailbox, token, with_mail
from tests.published import feed_page, keys_of, verified_page, with_keys

NEWS_SECONDS = 20  # far more than a poll


@pytest.fixture(scope="module")
def published(config: Config, mailbox: Mailbox) -> Iterator[Service]:
    """Run a service with a feed, and with mail."""
    settings = with_keys(with_mail(config, mailbox), "feed", SESSIONS_PER_USER=3)
    with Service(settings) as service:
        yield service
    drop_database(settings.MONGO_URI)


@pytest.fixture
def stored(published: Service, database: Database[Document]) -> Database[Document]:
    """Return the database of this service."""
    return database.client.get_database(published.config.MONGO_URI.rpartition("/")[2])


def administrator(service: Service, stored: Database[Document]) -> Actor:
    """Register an administrator."""
    actor = registered(service)
    stored.users.update_one({"username": actor.username}, {"$set": {"access": Access.ADMIN}})
    return actor.log_in()


def in_feed(service: Service, session_id: str) -> bool:
    """Look, and return whether a session is in the feed."""
    service.run(service.app.ctx.revocations.catch_up())
    return session_id in feed_page(service)["sessions"]


# Every way in which a session ends


def ended_by_reset(service: Service, mailbox: Mailbox) -> str:
    owner = Owner.verified(service, mailbox)
    session_id: str = owner.claims["sid"]
    assert owner.reset(owner.ask_for_reset(), NEW_PASSWORD).status_code == 204
    return session_id


def ended_by_undo(service: Service, mailbox: Mailbox) -> str:
    owner = Owner.verified(service, mailbox)
    session_id: str = owner.claims["sid"]
    assert owner.remove().status_code == 204
    undo = token(owner.mails(subject="was removed")[0])
    assert service("POST", "/users/email/undo", json={"token": undo}).status_code == 204
    return session_id


def change_password(actor: Actor) -> httpx.Response:
    return actor.post("/users/me/password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD})


def reuse(actor: Actor, stored: Database[Document]) -> httpx.Response:
    """Use a refresh token again after its grace period."""
    old = actor.tokens["refresh_token"]
    assert actor.refresh().status_code == 200
    past = datetime.now(UTC) - timedelta(hours=1)
    stored.sessions.update_one({"_id": actor.claims["sid"]}, {"$set": {"rotations": [past]}})
    return actor.service("POST", "/auth/refresh", json={"refresh_token": old})


def displace(actor: Actor) -> httpx.Response:
    """Log in more often than a user may have sessions."""
    for _ in range(3):
        last = actor.service("POST", "/auth", json={"username": actor.username, "password": PASSWORD})
    return last


def by_form(actor: Actor, presented: str) -> httpx.Response:
    return actor.service("POST", "/oauth/revoke", data={"token": actor.tokens[presented]})


# Each is called with the actor, an administrator and the database, and answers with success or 401.
ENDS: dict[str, Callable[[Actor, Actor, Database[Document]], httpx.Response]] = {
    "logout": lambda actor, _, __: actor.post("/auth/logout"),
    "logout-all": lambda actor, _, __: actor.post("/auth/logout-all"),
    "ended in the list": lambda actor, _, __: actor.service(
        "DELETE", f"/auth/sessions/{actor.claims['sid']}", token=actor.log_in().tokens["access_token"]
    ),
    "step-up": lambda actor, _, __: actor.post("/auth/step-up", {"current_password": PASSWORD}),
    "password changed": lambda actor, _, __: change_password(actor),
    "deleted": lambda actor, _, __: actor.post("/users/me/delete", {"current_password": PASSWORD}),
    "disabled": lambda actor, admin, _: admin.service(
        "PATCH", f"/users/{actor.claims['sub']}", token=admin.tokens["access_token"], json={"disabled": True}
    ),
    "access changed": lambda actor, admin, _: admin.service(
        "PATCH", f"/users/{actor.claims['sub']}", token=admin.tokens["access_token"], json={"access": "guest"}
    ),
    "deleted by an administrator": lambda actor, admin, _: admin.service(
        "DELETE", f"/users/{actor.claims['sub']}", token=admin.tokens["access_token"]
    ),
    "refresh token reused": lambda actor, _, stored: reuse(actor, stored),
    "displaced": lambda actor, _, __: displace(actor),
    "revoked by access token": lambda actor, _, __: by_form(actor, "access_token"),
    "revoked by refresh token": lambda actor, _, __: by_form(actor, "refresh_token"),
}
BY_MAIL = {"reset": ended_by_reset, "undo": ended_by_undo}
# The methods of models that end sessions, which the cases above call; a new one needs a case.
WAYS = {"end", "end_all", "end_surplus", "end_key"}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_in_the_feed(published: Service, stored: Database[Document], end: str) -> None:
    actor, admin = registered(published), administrator(published, stored)
    session_id = actor.claims["sid"]
    assert not in_feed(published, session_id)
    response = ENDS[end](actor, admin, stored)
    assert response.is_success or response.status_code == 401, response.text
    assert in_feed(published, session_id)


@pytest.mark.parametrize("end", BY_MAIL)
def test_every_end_by_mail_is_in_the_feed(published: Service, mailbox: Mailbox, end: str) -> None:
    assert in_feed(published, BY_MAIL[end](published, mailbox))


def test_no_way_to_end_a_session_was_forgotten() -> None:
    """Whoever adds a way, adds its case above."""
    methods = {name: method for name, method in vars(Sessions).items() if hasattr(method, "__code__")}
    assert {name for name, method in methods.items() if "END" in method.__code__.co_names} == WAYS


# Pages and cursors


def test_a_page_after_a_cursor_has_what_is_new(published: Service) -> None:
    before = feed_page(published)
    assert (before["after"], before["complete"]) == (None, True)
    actor = registered(published)
    actor.post("/auth/logout")
    published.run(published.app.ctx.revocations.catch_up())
    page = feed_page(published, after=before["cursor"])
    assert page["after"] == before["cursor"]
    assert actor.claims["sid"] in page["sessions"]
    remembered = page["sessions"][actor.claims["sid"]] - time.time()
    assert 0 < remembered <= published.config.ACCESS_TOKEN_SECONDS + MARGIN_SECONDS + 5
    assert page["cursor"] != before["cursor"]
    assert 0 <= page["age"] < published.config.REVOCATION_STALE_SECONDS


def test_a_nonce_is_part_of_the_page_and_nothing_is_waited_for(published: Service) -> None:
    cursor = feed_page(published)["cursor"]
    nonce = secrets.token_urlsafe(16)
    began = time.monotonic()
    assert feed_page(published, after=cursor, wait=25, nonce=nonce)["nonce"] == nonce
    assert time.monotonic() - began < NEWS_SECONDS
    assert "nonce" not in feed_page(published, after=cursor)


def test_followers_hear_of_an_end_while_they_wait(published: Service) -> None:
    actor = registered(published)
    published.run(published.app.ctx.revocations.catch_up())
    cursor = feed_page(published)["cursor"]

    async def follow() -> list[httpx.Response]:
        path = f"/.well-known/revocations?after={cursor}&wait=25"
        waiting = [asyncio.create_task(published.send("GET", path)) for _ in range(10)]
        while keys_of(published).feed._waiting.total() < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await published.send("POST", "/auth/logout", token=actor.tokens["access_token"])
        return await asyncio.gather(*waiting)

    began = time.monotonic()
    responses = published.run(follow())
    assert time.monotonic() - began < NEWS_SECONDS
    assert len({response.text for response in responses}) == 1, "the page is signed once for all"
    assert actor.claims["sid"] in verified_page(published, responses[0].text)["sessions"]
    assert not keys_of(published).feed.followed


def test_without_news_a_wait_ends_with_an_empty_page(published: Service) -> None:
    published.run(published.app.ctx.revocations.catch_up())
    cursor = feed_page(published)["cursor"]
    page = feed_page(published, after=cursor, wait=1)
    assert page["complete"]


def test_many_followers_are_answered_a_few_at_a_time(published: Service) -> None:
    """Or a request of somebody else would wait until all are answered."""
    actor = registered(published)
    published.run(published.app.ctx.revocations.catch_up())
    feed, cursor = keys_of(published).feed, feed_page(published)["cursor"]

    async def most_at_once() -> int:
        waiting = [
            asyncio.create_task(feed.page(cursor, wait=NEWS_SECONDS, nonce=None, network=None)) for _ in range(99)
        ]
        await asyncio.sleep(0)
        await published.send("POST", "/auth/logout", token=actor.tokens["access_token"])
        most = before = 0
        while before < len(waiting):
            await asyncio.sleep(0)
            done = sum(task.done() for task in waiting)
            most, before = max(most, done - before), done
        return most

    assert published.run(most_at_once()) <= feed_module.AT_ONCE


def test_who_stops_answers_those_who_wait(config: Config) -> None:
    settings = with_keys(config, f"feed_{secrets.token_hex(4)}")
    with Service(settings) as service:
        cursor = feed_page(service)["cursor"]

        async def follow() -> httpx.Response:
            path = f"/.well-known/revocations?after={cursor}&wait=25"
            waiting = asyncio.create_task(service.send("GET", path))
            while not keys_of(service).feed.followed:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            service.app.ctx.stop_waiting()
            return await waiting

        began = time.monotonic()
        assert service.run(follow()).status_code == 200
        assert time.monotonic() - began < NEWS_SECONDS
    drop_database(settings.MONGO_URI)


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=1.2",
        "after=1.2.3.zz",
        "after=4294967296.0.0.0000000000000000",
        "after=4294967295.4294967296.0.0000000000000000",
        "wait=-1",
        "wait=26",
        "wait=x",
        "nonce=a b",
    ],
)
def test_a_wrong_query_is_rejected(published: Service, query: str) -> None:
    response = published("GET", f"/.well-known/revocations?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_fields")


def test_a_stale_worker_answers_503(published: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published.app.ctx.revocations, "stale", lambda: True)
    response = published("GET", "/.well-known/revocations")
    assert (response.status_code, response.json()["code"]) == (503, "revocations_stale")
    assert int(response.headers["retry-after"]) >= 1


def test_beyond_the_limits_followers_are_answered_at_once(published: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    published.run(published.app.ctx.revocations.catch_up())
    cursor = feed_page(published)["cursor"]
    monkeypatch.setattr(feed_module, "WAITING", 2)

    async def follow() -> list[float]:
        async def one() -> float:
            began = time.monotonic()
            response = await published.send("GET", f"/.well-known/revocations?after={cursor}&wait=5")
            assert response.status_code == 200
            return time.monotonic() - began

        return await asyncio.gather(*(one() for _ in range(6)))

    waited = sorted(published.run(follow()))
    assert sum(seconds >= 5 * (1 - feed_module.SPREAD) - 0.01 for seconds in waited) == 2, waited


def test_one_network_does_not_take_the_places_of_others() -> None:
    """Unless all clients look like one."""
    feed = Worker().feed
    for _ in range(feed_module.WAITING_OF_NETWORK):
        assert feed._has_room("greedy")
        feed._waiting["greedy"] += 1
    assert not feed._has_room("greedy")
    assert feed._has_room("another")
    assert feed._has_room(None)


# What two workers know


class Signed:
    """Signs nothing, so that pages are their claims."""

    ready, kid = True, "kid"

    def __init__(self) -> None:
        self.claims: Document = {}

    def encode(self, claims: Document, *, sessions: str) -> str:
        """Remember the claims."""
        self.claims = claims | {"sessions": json.loads(sessions)}
        return "page"


async def nothing() -> None:
    """Replace no key."""


class Worker:
    """A feed whose looks the test makes."""

    def __init__(self) -> None:
        self.signed = Signed()
        self.now = 1000.0
        self.revocations = Revocations(
            None,  # type: ignore[arg-type]
            stale_seconds=1e9,
            lifetime_seconds=900,
            overlap_seconds=3,
            clock=lambda: self.now,
        )
        self.revocations.proven_at = 0
        self.feed = Feed(self.revocations, self.signed, replace_key=nothing)  # type: ignore[arg-type]

    def look(self, *entries: tuple[int, str], settled: int) -> None:
        """Find entries, and settle a place."""
        for _, name in entries:
            self.revocations.add(name)
        self.feed.seen([(Timestamp(500 + place, 1), name) for place, name in entries])
        self.feed.looked(Timestamp(500 + settled, 1))

    def page(self, after: str | None = None) -> Document:
        """Return the claims of a page."""
        asyncio.run(self.feed.page(after, wait=0, nonce=secrets.token_hex(4), network="n"))
        return self.signed.claims

    def is_new(self, after: str) -> bool:
        """Return whether a follower with this cursor would be answered at once."""
        return self.feed._is_new(Cursor.read(after))


def test_a_late_end_before_a_known_one_is_not_missed() -> None:
    """An end gets its place when it is written, and may be seen after others with later places."""
    worker = Worker()
    worker.look((5, "five"), (7, "seven"), settled=5)
    cursor = worker.page()["cursor"]
    assert not worker.is_new(cursor)
    worker.look((5, "five"), (6, "late"), (7, "seven"), settled=5)
    assert worker.is_new(cursor)
    assert "late" in worker.page(cursor)["sessions"]


def test_a_cursor_of_another_worker_misses_nothing_and_wakes_for_nothing() -> None:
    one, other = Worker(), Worker()
    known = [(5, "five"), (6, "six"), (7, "seven")]
    one.look(*known, settled=7)
    other.look(*known, settled=5)
    assert not other.is_new(one.page()["cursor"]), "they know the same"
    assert not one.is_new(other.page()["cursor"])
    other.look(*known, (8, "eight"), settled=5)
    assert other.is_new(one.page()["cursor"])
    assert "eight" in other.page(one.page()["cursor"])["sessions"]
    assert not one.is_new(other.page()["cursor"]), "one knows less, so it has nothing to say"
    one.look((7, "seven"), (8, "eight"), settled=7)
    assert not one.is_new(other.page()["cursor"])


def test_pages_together_have_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "PAGE", 10)
    worker = Worker()
    worker.look(*((place, f"session {place}") for place in range(95)), settled=90)
    found: set[str] = set()
    after, complete = None, False
    while not complete:
        page = worker.page(after)
        found |= set(page["sessions"])
        after, complete = page["cursor"], page["complete"]
        assert len(page["sessions"]) <= 10 + 5
    assert found == {f"session {place}" for place in range(95)}


def test_a_worker_that_has_just_started_sends_no_follower_back() -> None:
    one, restarted = Worker(), Worker()
    known = [(5, "five"), (6, "six"), (7, "seven")]
    one.look(*known, settled=7)
    restarted.feed.seen([(Timestamp(500 + place, 1), name) for place, name in known])
    restarted.feed.looked(Timestamp(0, 0))
    cursor = one.page()["cursor"]
    assert not restarted.is_new(cursor)
    assert Cursor.read(restarted.page(cursor)["cursor"]).place == Cursor.read(cursor).place
    assert set(restarted.page(cursor)["sessions"]) == {"seven"}


def test_sessions_leave_the_feed_when_their_tokens_are_dead() -> None:
    worker = Worker()
    worker.look((1, "old"), settled=2)
    worker.now += 1000
    worker.look((3, "young"), settled=4)
    assert set(worker.page()["sessions"]) == {"old", "young"}
    worker.now += 900
    worker.revocations._forget(worker.now)
    worker.look((5, "last"), settled=5)
    page = worker.page()
    assert set(page["sessions"]) == {"young", "last"}
    assert 1200 <= page["sessions"]["last"] - page["iat"] <= 1201


def test_the_feed_needs_no_database(published: Service, stored: Database[Document]) -> None:
    """A thousand followers cost what one look costs."""
    before = stored.client.admin.command("serverStatus")["opcounters"]["query"]
    for _ in range(200):
        published("GET", "/.well-known/revocations", params={"nonce": str(ObjectId())})
    after = stored.client.admin.command("serverStatus")["opcounters"]["query"]
    assert after - before < 100
