"""Refreshing: tokens rotate, agree under concurrency, and betray thieves."""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from app.models.sessions import ROTATIONS_REMEMBERED
from tests.conftest import Actor, Document, Service


def let_pass(database: Database[Document], alice: Actor, seconds: float) -> None:
    """Age a session: what the database wrote of it, it wrote so much earlier."""
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert session
    earlier = timedelta(seconds=seconds)
    aged = {
        name: [at - earlier for at in value] if name == "rotations" else value - earlier
        for name, value in session.items()
        if name in ("created_at", "refreshed_at", "expires_at", "rotations")
    }
    database.sessions.update_one({"_id": session["_id"]}, {"$set": aged})


def refused(service: Service, refresh_token: str) -> str:
    """Show that a refresh token is refused, and why."""
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


def test_a_lost_answer_can_be_asked_for_again(alice: Actor, database: Database[Document]) -> None:
    """Within the grace an old token gives the same successor as before."""
    first = alice.tokens["refresh_token"]
    successor = alice.refresh().json()["refresh_token"]
    let_pass(database, alice, 9)
    assert alice.refresh(first).json()["refresh_token"] == successor
    assert alice.secret_status == 200
    assert alice.refresh(successor).status_code == 200


def test_the_grace_is_measured_from_the_rotation_and_not_extended(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    first = alice.tokens["refresh_token"]
    alice.refresh()
    for _ in range(3):
        let_pass(database, alice, 3)
        assert alice.refresh(first).status_code == 200
    let_pass(database, alice, 3)
    assert refused(service, first) == "refresh_token_reused"


def test_each_rotation_has_a_grace_of_its_own(alice: Actor) -> None:
    """A slow client gets its successor also when a quick one has already used that."""
    first = alice.tokens["refresh_token"]
    second = alice.refresh().json()["refresh_token"]
    third = alice.refresh().json()["refresh_token"]
    assert alice.refresh(first).json()["refresh_token"] == second
    assert alice.refresh(second).json()["refresh_token"] == third


@pytest.mark.parametrize("ancestor", range(3))
def test_a_stolen_token_ends_the_session_for_both(
    service: Service, alice: Actor, database: Database[Document], ancestor: int
) -> None:
    """After the grace any ancestor betrays that two hands hold the session (RFC 9700 section 4.14.2)."""
    tokens = [alice.tokens["refresh_token"]]
    for _ in range(3):
        tokens.append(alice.refresh().json()["refresh_token"])
        let_pass(database, alice, 11)
    assert refused(service, tokens[ancestor]) == "refresh_token_reused"
    assert refused(service, tokens[-1]) == "session_ended"
    assert alice.get("/tests/secret").json()["code"] == "session_ended"
    assert alice.log_in().secret_status == 200


def test_a_token_older_than_all_remembered_rotations_ends_the_session(service: Service, alice: Actor) -> None:
    """The list of rotations is bounded, and what it no longer tells counts as long ago."""
    first = alice.tokens["refresh_token"]
    for _ in range(ROTATIONS_REMEMBERED + 1):
        alice.refresh()
    assert refused(service, first) == "refresh_token_reused"
    assert alice.secret_status == 401


def test_parallel_refreshes_agree_on_one_successor(
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
    let_pass(database, alice, 14 * 24 * 3600 + 1)
    assert refused(service, alice.tokens["refresh_token"]) == "session_ended"


def test_use_keeps_a_session_going_until_its_absolute_end(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    for _ in range(2):
        let_pass(database, alice, 13 * 24 * 3600)
        assert alice.refresh().status_code == 200
    let_pass(database, alice, 4 * 24 * 3600 - 60)  # thirty days less a minute
    assert alice.refresh().json()["expires_in"] in range(50, 61), "no access token outlives its session"
    let_pass(database, alice, 61)
    assert refused(service, alice.tokens["refresh_token"]) == "session_ended"


def test_nothing_in_the_database_can_be_replayed(alice: Actor, database: Database[Document]) -> None:
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    secret_part = alice.tokens["refresh_token"].rpartition(".")[2]
    assert len(secret_part) == 43
    assert secret_part not in repr(session)
    assert secret_part not in repr(database.users.find_one({"username": alice.username}))


@pytest.mark.parametrize("changed", ["session", "counter", "mac", "leading zero", "access token", "empty", "long"])
def test_a_refresh_token_that_we_did_not_make_is_refused(
    service: Service, alice: Actor, bob: Actor, changed: str
) -> None:
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
    assert refused(service, token) == "refresh_token_invalid"
    assert (alice.secret_status, bob.secret_status) == (200, 200)


def test_proofs_are_compared_in_constant_time(
    service: Service, alice: Actor, forge: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of refresh tokens and of access tokens, or one could be found byte by byte."""
    compared: list[Any] = []
    compare = hmac.compare_digest

    def compare_and_tell(one: Any, other: Any) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare_and_tell)
    assert alice.refresh().status_code == 200
    assert len(compared) == 1
    assert service("GET", "/tests/secret", token=forge()).status_code == 200
    assert len(compared) == 2


def test_a_session_that_the_database_has_forgotten_is_over(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """Also one whose counter is behind, as after a restored backup."""
    ahead = alice.refresh().json()["refresh_token"]
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"counter": 0}})
    assert refused(service, ahead) == "session_ended"
    database.sessions.delete_one({"_id": alice.claims["sid"]})
    assert refused(service, ahead) == "session_ended"


def test_times_are_the_databases_own(alice: Actor, database: Database[Document]) -> None:
    session = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert session
    assert abs(session["created_at"] - datetime.now(UTC)) < timedelta(seconds=60)
    assert session["expires_at"] - session["created_at"] == timedelta(days=14)
