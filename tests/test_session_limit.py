"""One user has a bounded number of active sessions (session flooding)."""

from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database

from tests.conftest import PASSWORD, Actor, Document, Service

LIMIT = 3


@pytest.fixture(autouse=True)
def _limit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit."""
    monkeypatch.setattr(service.app.ctx.sessions, "_per_user", LIMIT)


def test_one_more_session_ends_the_one_that_was_refreshed_longest_ago(alice: Actor) -> None:
    """It is unusable at once, for access and refresh, and is not listed."""
    phone, tablet = alice.log_in(), alice.log_in()
    assert alice.refresh().status_code == 200
    laptop = alice.log_in()
    assert phone.get("/tests/secret").json()["code"] == "session_ended"
    assert phone.refresh().json()["code"] == "session_ended"
    assert [actor.secret_status for actor in (alice, tablet, laptop)] == [200] * 3
    listed = laptop.get("/auth/sessions").json()["sessions"]
    assert {one["id"] for one in listed} == {actor.claims["sid"] for actor in (alice, tablet, laptop)}


def test_ended_and_expired_sessions_do_not_count(alice: Actor, database: Database[Document]) -> None:
    phone, tablet = alice.log_in(), alice.log_in()
    tablet.post("/auth/logout")
    past = datetime.now(UTC) - timedelta(seconds=1)
    database.sessions.update_one({"_id": phone.claims["sid"]}, {"$set": {"expires_at": past}})
    others = [alice.log_in() for _ in range(LIMIT - 1)]
    assert [actor.secret_status for actor in (alice, *others)] == [200] * LIMIT


def test_parallel_logins_may_exceed_the_limit_until_the_next_one(service: Service, alice: Actor) -> None:
    body = {"username": alice.username, "password": PASSWORD}
    responses = service.together(*(service.send("POST", "/auth", json=body) for _ in range(2 * LIMIT)))
    opened = [Actor(service, alice.username, response.json()) for response in responses if response.status_code == 200]
    assert len(opened) == 2 * LIMIT
    last = alice.log_in()
    active = [actor for actor in (alice, *opened, last) if actor.secret_status == 200]
    assert len(active) == LIMIT
    assert last in active


def test_the_sessions_of_an_earlier_release_are_ended_by_the_next_login(
    alice: Actor, database: Database[Document]
) -> None:
    (document,) = database.sessions.find({"_id": alice.claims["sid"]})
    database.sessions.insert_many({**document, "_id": f"{document['_id'][:-3]}{number:03}"} for number in range(500))
    alice.log_in()
    query = {"user_id": alice.claims["sub"], "ended": None}
    assert database.sessions.count_documents(query) == LIMIT


def test_the_oldest_sessions_are_found_by_an_index(alice: Actor, database: Database[Document]) -> None:
    """Without a sort in memory, however many sessions have ended."""
    query = {"user_id": alice.claims["sub"], "expires_at": {"$exists": True}, "ended": None}
    plan = str(
        database.sessions.find(query).sort("refreshed_at", -1).skip(LIMIT).explain()["queryPlanner"]["winningPlan"]
    )
    assert "user_id_1_refreshed_at_-1" in plan
    assert "SORT" not in plan
