"""Step-up authentication (RFC 9470)."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database

from app.refusals import refusal
from app.security.freshness import StepUpRequired
from app.tokens.access import Claims, Payload
from tests.conftest import PASSWORD, Actor, Document


def step_up(actor: Actor, password: str = PASSWORD) -> Actor:
    """Replace the session, and return its user in the new one."""
    response = actor.post("/auth/step-up", {"current_password": password})
    assert response.status_code == 200, response.text
    return Actor(actor.service, actor.username, response.json())


def test_a_fresh_session_replaces_the_old_one(alice: Actor, database: Database[Document]) -> None:
    before = alice.claims
    database.sessions.update_one(
        {"_id": before["sid"]},
        {"$set": {name: datetime.now(UTC) - timedelta(days=1) for name in ("created_at", "authenticated_at")}},
    )
    old = database.sessions.find_one({"_id": before["sid"]})
    assert old
    stepped_up = step_up(alice)
    new = database.sessions.find_one({"_id": stepped_up.claims["sid"]})
    assert new
    assert stepped_up.claims["sid"] != before["sid"]
    assert stepped_up.claims["amr"] == ["pwd"]
    assert abs(stepped_up.claims["auth_time"] - time.time()) < 60
    assert new["created_at"] == old["created_at"], "the session does not live longer"
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401
    assert stepped_up.secret_status == 200


def test_a_refresh_does_not_change_when_and_how_the_user_authenticated(
    alice: Actor, database: Database[Document]
) -> None:
    earlier = datetime.now(UTC) - timedelta(days=1)
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"authenticated_at": earlier}})
    refreshed = Actor(alice.service, alice.username, alice.refresh().json())
    assert refreshed.claims["auth_time"] == int(earlier.timestamp())
    assert refreshed.claims["amr"] == ["pwd"]


def test_a_session_of_an_earlier_release_is_never_fresh(alice: Actor, database: Database[Document]) -> None:
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$unset": {"authenticated_at": True, "amr": True}})
    refreshed = Actor(alice.service, alice.username, alice.refresh().json())
    assert {"auth_time", "amr"}.isdisjoint(refreshed.claims)
    claims = Claims.of(Payload.model_validate(refreshed.claims), kid="")
    assert (claims.amr, claims.auth_time) == (("pwd",), 0)
    with pytest.raises(StepUpRequired) as refused:
        alice.service.app.ctx.authenticator.freshness.require(claims)
    problem = refusal(refused.value)
    assert problem
    assert problem.code == "step_up_required"
    assert problem.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_user_authentication", max_age="300"'
    )


def test_the_current_password_is_required(alice: Actor) -> None:
    wrong = alice.post("/auth/step-up", {"current_password": "wrong"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_credentials")
    assert alice.secret_status == 200
    assert alice.service("POST", "/auth/step-up", json={"current_password": PASSWORD}).status_code == 401


def test_of_simultaneous_step_ups_one_succeeds(alice: Actor) -> None:
    """A session is replaced once (race condition)."""
    token = alice.tokens["access_token"]
    body = {"current_password": PASSWORD}
    responses = alice.service.together(
        *(alice.service.send("POST", "/auth/step-up", token=token, json=body) for _ in range(5))
    )
    assert sorted(one.status_code for one in responses) == [200, 401, 401, 401, 401]


def test_a_logout_everywhere_wins_against_a_step_up(alice: Actor) -> None:
    other = alice.log_in()
    stepped_up = step_up(alice)
    assert other.post("/auth/logout-all").status_code == 204
    assert stepped_up.secret_status == 401
