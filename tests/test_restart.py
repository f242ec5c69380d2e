"""Sessions, ended sessions, reuse detection and failed logins survive a restart."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pymongo.database import Database

from config import Config
from tests.conftest import Actor, Document, Service


@pytest.fixture
def restart(config: Config) -> Iterator[Callable[[], Service]]:
    """Return a function that starts the service again, with the same database and key."""
    with ExitStack() as started:
        yield lambda: started.enter_context(Service(config))


def test_a_session_stays_active_after_a_restart(alice: Actor, restart: Callable[[], Service]) -> None:
    again = Actor(restart(), alice.username, alice.tokens)
    assert again.secret_status == 200
    assert again.refresh().status_code == 200


def test_an_ended_session_stays_ended_after_a_restart(alice: Actor, bob: Actor, restart: Callable[[], Service]) -> None:
    alice.post("/auth/logout")
    bob.post("/auth/logout-all")
    service = restart()
    for actor in (alice, bob):
        again = Actor(service, actor.username, actor.tokens)
        assert again.get("/tests/secret").json()["code"] == "session_ended"
        assert again.refresh().status_code == 401


def test_a_rotated_token_does_not_become_valid_after_a_restart(
    alice: Actor, database: Database[Document], restart: Callable[[], Service]
) -> None:
    """In another server the start time was part of the comparison (CVE-2026-9802)."""
    first = alice.tokens["refresh_token"]
    alice.refresh()
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"rotations": []}})  # as if they were long ago
    again = Actor(restart(), alice.username, alice.tokens)
    assert again.refresh(first).json()["code"] == "refresh_token_reused"
    assert again.secret_status == 401


def test_an_interrupted_end_of_sessions_is_finished_before_the_service_responds(
    config: Config, alice: Actor, bob: Actor, database: Database[Document]
) -> None:
    """All workers died between the two steps. Otherwise the tokens would be accepted until the first poll."""
    mark = {"$inc": {"generation": 1}, "$set": {"ending": True, "disabled": True}}
    database.users.update_one({"username": alice.username}, mark)
    database.sessions.update_one({"_id": bob.claims["sid"]}, {"$set": {"ending": True}})
    with Service(config.model_copy(update={"REVOCATION_POLL_SECONDS": 60, "REVOCATION_STALE_SECONDS": 120})) as service:
        for actor in (alice, bob):
            again = Actor(service, actor.username, actor.tokens)
            assert again.get("/tests/secret").json()["code"] == "session_ended"


def test_an_ended_session_stays_ended_when_settings_change(
    config: Config, alice: Actor, database: Database[Document], restart: Callable[[], Service]
) -> None:
    """A refresh under shorter lifetimes shortens the session, but its first token lives longer than that."""
    shorter = {"ACCESS_TOKEN_SECONDS": 60, "REFRESH_TOKEN_SECONDS": 60, "SESSION_SECONDS": 60}
    first = dict(alice.tokens)
    with Service(config.model_copy(update=shorter)) as service:
        again = Actor(service, alice.username, alice.tokens)
        assert again.refresh().status_code == 200
        assert again.post("/auth/logout").status_code == 204
    ended = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert ended
    assert "expires_at" not in ended, "only the time of its end removes it"
    assert Actor(restart(), alice.username, first).get("/tests/secret").json()["code"] == "session_ended"


def test_failed_logins_still_count_after_a_restart(service: Service, restart: Callable[[], Service]) -> None:
    body = {"username": f"unknown-{secrets.token_hex(4)}", "password": "a wrong password"}
    assert [service("POST", "/auth", json=body).status_code for _ in range(10)] == [401] * 10
    assert restart()("POST", "/auth", json=body).status_code == 429


def test_a_key_rotation_keeps_sessions_active(config: Config, alice: Actor) -> None:
    """The old key verifies, and the new key signs. Without the old key its tokens are rejected."""
    new_key = secrets.token_urlsafe(48)
    rotated = {"JWT_SECRET_KEY": new_key, "JWT_PREVIOUS_SECRET_KEYS": [config.JWT_SECRET_KEY]}
    with Service(config.model_copy(update=rotated)) as service:
        again = Actor(service, alice.username, alice.tokens)
        assert again.secret_status == 200
        assert again.refresh().status_code == 200
        renewed = dict(again.tokens)
    with Service(config.model_copy(update={"JWT_SECRET_KEY": new_key})) as service:
        assert Actor(service, alice.username, renewed).secret_status == 200
        outdated = Actor(service, alice.username, dict(alice.tokens))
        assert outdated.secret_status == 401
        assert outdated.refresh().status_code == 401
