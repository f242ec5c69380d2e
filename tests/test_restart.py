"""What a restart must not forget: sessions, their ends, reused tokens, and failed passwords."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pymongo.database import Database

from config import Config
from tests.conftest import Actor, Document, Service


@pytest.fixture
def restart(config: Config) -> Iterator[Callable[[], Service]]:
    """Give a way to start the service anew, on the same database and with the same key."""
    with ExitStack() as started:
        yield lambda: started.enter_context(Service(config))


def test_a_session_goes_on_after_a_restart(alice: Actor, restart: Callable[[], Service]) -> None:
    again = Actor(restart(), alice.username, alice.tokens)
    assert again.secret_status == 200
    assert again.refresh().status_code == 200


def test_an_ended_session_stays_ended(alice: Actor, bob: Actor, restart: Callable[[], Service]) -> None:
    alice.post("/auth/logout")
    bob.post("/auth/logout-all")
    service = restart()
    for actor in (alice, bob):
        again = Actor(service, actor.username, actor.tokens)
        assert again.get("/tests/secret").json()["code"] == "session_ended"
        assert again.refresh().status_code == 401


def test_a_rotated_token_does_not_become_good_again(
    alice: Actor, database: Database[Document], restart: Callable[[], Service]
) -> None:
    """CVE-2026-9802: elsewhere the time of the start was part of the comparison."""
    first = alice.tokens["refresh_token"]
    alice.refresh()
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"rotations": []}})  # long ago
    again = Actor(restart(), alice.username, alice.tokens)
    assert again.refresh(first).json()["code"] == "refresh_token_reused"
    assert again.secret_status == 401


def test_failed_passwords_are_not_forgotten(service: Service, restart: Callable[[], Service]) -> None:
    body = {"username": f"nobody-{secrets.token_hex(4)}", "password": "a wrong password"}
    assert [service("POST", "/auth", json=body).status_code for _ in range(10)] == [401] * 10
    assert restart()("POST", "/auth", json=body).status_code == 429


def test_a_rotation_of_the_key_logs_nobody_out(config: Config, alice: Actor) -> None:
    """The old key verifies, the new one signs; without the old one its tokens are foreign."""
    new_key = secrets.token_urlsafe(48)
    rotated = {"JWT_SECRET_KEY": new_key, "JWT_PREVIOUS_SECRET_KEYS": [config.JWT_SECRET_KEY]}
    with Service(config.model_copy(update=rotated)) as service:
        again = Actor(service, alice.username, alice.tokens)
        assert again.secret_status == 200
        assert again.refresh().status_code == 200
        renewed = dict(again.tokens)
    with Service(config.model_copy(update={"JWT_SECRET_KEY": new_key})) as service:
        assert Actor(service, alice.username, renewed).secret_status == 200
        stranger = Actor(service, alice.username, dict(alice.tokens))
        assert stranger.secret_status == 401
        assert stranger.refresh().status_code == 401
