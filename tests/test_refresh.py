"""Refresh tokens: rotation, concurrent refreshes and reuse detection."""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from app.models.sessions import ROTATIONS_REMEMBERED
from tests.conftest import Actor, Document, Service


def make_older(database: Database[Document], alice: Actor, seconds: float) -> None:
    """Move all stored times of a session back by `seconds`."""
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert session
    earlier = timedelta(seconds=seconds)
    aged = {
        name: [at - earlier for at in value] if name == "rotations" else value - earlier
        for name, value in session.items()
        if name in ("created_at", "refreshed_at", "expires_at", "rotations")
    }
    database.sessions.update_one({"_id": session["_id"]}, {"$set": aged})


def rejection(service: Service, refresh_token: str) -> str:
    """Assert that a refresh token is rejected, and return the code."""
    response = service("POST", "/auth/refresh", json={"refresh_token": refresh_token})
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    code: str = response.json()["code"]
    return code


def test_a_refresh_gives_new_tokens_for_the_same_session(alice: Actor) -> None:
    before, claims = alice.tokens, alice.claims
    response = alice.refresh()
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert set(response.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert alice.tokens["refresh_token"] != before["refresh_token"]
    assert alice.claims["sid"] == claims["sid"]
    assert alice.claims["jti"] != claims["jti"]
    assert alice.secret_status == 200
    assert alice.refresh().status_code == 200


def test_a_refresh_can_be_retried_within_the_grace_period(alice: Actor, database: Database[Document]) -> None:
    """An old token returns the same successor again, for example after a lost response."""
    first = alice.tokens["refresh_token"]
    successor = alice.refresh().json()["refresh_token"]
    make_older(database, alice, 9)
    assert alice.refresh(first).json()["refresh_token"] == successor
    assert alice.secret_status == 200
    assert alice.refresh(successor).status_code == 200


def test_the_grace_period_starts_at_the_rotation_and_is_not_extended(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    first = alice.tokens["refresh_token"]
    alice.refresh()
    for _ in range(3):
        make_older(database, alice, 3)
        assert alice.refresh(first).status_code == 200
    make_older(database, alice, 3)
    assert rejection(service, first) == "refresh_token_reused"


def test_each_rotation_has_its_own_grace_period(alice: Actor) -> None:
    """A slow client gets its successor even if a faster one has already used that successor."""
    first = alice.tokens["refresh_token"]
    second = alice.refresh().json()["refresh_token"]
    third = alice.refresh().json()["refresh_token"]
    assert alice.refresh(first).json()["refresh_token"] == second
    assert alice.refresh(second).json()["refresh_token"] == third


@pytest.mark.parametrize("ancestor", range(3))
def test_refresh_token_reuse_ends_the_session(
    service: Service, alice: Actor, database: Database[Document], ancestor: int
) -> None:
    """After the grace period, any earlier token shows that two clients hold the session.

    It ends for both, the user and the attacker (RFC 9700 section 4.14.2).
    """
    tokens = [alice.tokens["refresh_token"]]
    for _ in range(3):
        tokens.append(alice.refresh().json()["refresh_token"])
        make_older(database, alice, 11)
    assert rejection(service, tokens[ancestor]) == "refresh_token_reused"
    assert rejection(service, tokens[-1]) == "session_ended"
    assert alice.get("/tests/secret").json()["code"] == "session_ended"
    assert alice.log_in().secret_status == 200


def test_a_token_older_than_all_remembered_rotations_ends_the_session(service: Service, alice: Actor) -> None:
    """The list of rotations is bounded. Rotations that it no longer has count as long ago."""
    first = alice.tokens["refresh_token"]
    for _ in range(ROTATIONS_REMEMBERED + 1):
        alice.refresh()
    assert rejection(service, first) == "refresh_token_reused"
    assert alice.secret_status == 401


def test_parallel_refreshes_return_the_same_successor(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    body = {"refresh_token": alice.tokens["refresh_token"]}
    responses = service.together(*(service.send("POST", "/auth/refresh", json=body) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.json()["refresh_token"] for response in responses}) == 1
    assert len({response.json()["access_token"] for response in responses}) == 20
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert session
    assert session["counter"] == 1


def test_an_unused_session_expires(service: Service, alice: Actor, database: Database[Document]) -> None:
    make_older(database, alice, 14 * 24 * 3600 + 1)
    assert rejection(service, alice.tokens["refresh_token"]) == "session_ended"


def test_refreshes_extend_a_session_until_its_absolute_expiry(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    for _ in range(2):
        make_older(database, alice, 13 * 24 * 3600)
        assert alice.refresh().status_code == 200
    make_older(database, alice, 4 * 24 * 3600 - 60)  # thirty days minus one minute
    assert alice.refresh().json()["expires_in"] in range(50, 61), "no access token is valid longer than its session"
    make_older(database, alice, 61)
    assert rejection(service, alice.tokens["refresh_token"]) == "session_ended"


def test_nothing_in_the_database_can_be_replayed(alice: Actor, database: Database[Document]) -> None:
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    secret_part = alice.tokens["refresh_token"].rpartition(".")[2]
    assert len(secret_part) == 43
    assert secret_part not in repr(session)
    assert secret_part not in repr(database.users.find_one({"username": alice.username}))


@pytest.mark.parametrize("changed", ["session", "counter", "mac", "leading zero", "access token", "empty", "long"])
def test_a_forged_refresh_token_is_rejected(service: Service, alice: Actor, bob: Actor, changed: str) -> None:
    session_id, counter, mac = alice.tokens["refresh_token"].split(".")
    token = {
        "session": f"{bob.claims['sid']}.{counter}.{mac}",
        "counter": f"{session_id}.1.{mac}",
        "mac": f"{session_id}.{counter}.{mac[::-1]}",
        "leading zero": f"{session_id}.00.{mac}",
        "access token": alice.tokens["access_token"],
        "empty": "",
        "long": f"{session_id}.{'9' * 300}.{mac}",
    }[changed]
    assert rejection(service, token) == "refresh_token_invalid"
    assert (alice.secret_status, bob.secret_status) == (200, 200)


def test_signatures_are_compared_in_constant_time(
    service: Service, alice: Actor, forge: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For refresh tokens and access tokens. Otherwise a timing attack could find a signature byte by byte."""
    compared: list[Any] = []
    compare = hmac.compare_digest

    def recording_compare(one: Any, other: Any) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", recording_compare)
    assert alice.refresh().status_code == 200
    assert len(compared) == 1
    assert service("GET", "/tests/secret", token=forge()).status_code == 200
    assert len(compared) == 2


def test_a_session_that_is_missing_in_the_database_has_ended(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """The same applies if the stored counter is lower than the token's, as after the restore of a backup."""
    ahead = alice.refresh().json()["refresh_token"]
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"counter": 0}})
    assert rejection(service, ahead) == "session_ended"
    database.sessions.delete_one({"_id": alice.claims["sid"]})
    assert rejection(service, ahead) == "session_ended"


def test_session_times_come_from_the_database(alice: Actor, database: Database[Document]) -> None:
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert session
    assert abs(session["created_at"] - datetime.now(UTC)) < timedelta(seconds=60)
    assert session["expires_at"] - session["created_at"] == timedelta(days=14)
