"""Logout ends sessions of the same user only."""

import pytest
from pymongo.database import Database
from pymongo.errors import NetworkTimeout

from app.models.sessions import END
from app.security.generations import EndingsUnfinished
from tests.conftest import Actor, Document, Service


def has_ended(actor: Actor) -> bool:
    """Return whether both tokens of an actor are rejected."""
    return actor.secret_status == 401 and actor.refresh().status_code == 401


def test_logout_ends_exactly_this_session(alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    response = phone.post("/auth/logout")
    assert (response.status_code, response.content) == (204, b"")
    assert phone.get("/tests/secret").json()["code"] == "session_ended"
    assert has_ended(phone)
    assert (alice.secret_status, bob.secret_status) == (200, 200)


def test_logout_all_ends_every_session_of_this_user(alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    assert phone.post("/auth/logout-all").status_code == 204
    assert has_ended(phone)
    assert has_ended(alice)
    assert bob.secret_status == 200


def test_a_login_right_after_logout_all_works(alice: Actor) -> None:
    alice.post("/auth/logout-all")
    again = alice.log_in()
    assert again.secret_status == 200
    assert again.refresh().status_code == 200


def test_a_second_logout_is_rejected(alice: Actor) -> None:
    alice.post("/auth/logout")
    assert alice.post("/auth/logout").status_code == 401
    assert alice.post("/auth/logout-all").status_code == 401


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all", "/auth/me", "/auth/verify"])
def test_protected_auth_routes_need_an_access_token(service: Service, alice: Actor, path: str) -> None:
    method = "POST" if "logout" in path else "GET"
    assert service(method, path).status_code == 401
    assert service(method, path, token=alice.tokens["refresh_token"]).status_code == 401


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
@pytest.mark.parametrize("earlier", range(7))
def test_a_logout_wins_every_race_with_refreshes(service: Service, alice: Actor, path: str, earlier: int) -> None:
    """No token from before or during the race is valid afterwards, however many refreshes are in progress."""
    body = {"refresh_token": alice.tokens["refresh_token"]}
    refreshes = [service.send("POST", "/auth/refresh", json=body) for _ in range(6)]
    logout = service.send("POST", path, token=alice.tokens["access_token"])
    responses = service.together(*refreshes[:earlier], logout, *refreshes[earlier:])
    assert responses.pop(earlier).status_code == 204
    for tokens in [alice.tokens, *(response.json() for response in responses if response.status_code == 200)]:
        assert has_ended(Actor(service, alice.username, tokens))


def test_an_interrupted_logout_all_is_finished_by_another_worker(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """A worker that dies between the two steps leaves a mark; any other worker does the second step."""
    database.users.update_one({"username": alice.username}, {"$inc": {"generation": 1}, "$set": {"ending": True}})
    later = alice.log_in()
    service.run(service.app.ctx.generations.finish_interrupted())
    assert has_ended(alice)
    assert later.secret_status == 200, "a session of the new generation stays active"
    user = database.users.find_one({"username": alice.username})
    assert user
    assert "ending" not in user


@pytest.mark.parametrize("first", [True, False])
def test_one_user_whose_sessions_cannot_be_ended_does_not_stop_others(
    service: Service, alice: Actor, bob: Actor, database: Database[Document], *, first: bool
) -> None:
    """Neither those before nor those after. The failure is reported once all were tried."""
    failing, other = (alice, bob) if first else (bob, alice)
    end_all = service.app.ctx.sessions.end_all

    async def fail_for_one(user_id: str, generation: int) -> list[str]:
        if user_id == failing.claims["sub"]:
            raise NetworkTimeout
        ended: list[str] = await end_all(user_id, generation)
        return ended

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service.app.ctx.sessions, "end_all", fail_for_one)
        for actor in (alice, bob):
            mark = {"$inc": {"generation": 1}, "$set": {"ending": True}}
            database.users.update_one({"username": actor.username}, mark)
        with pytest.raises(EndingsUnfinished, match="users: NetworkTimeout"):
            service.run(service.app.ctx.generations.finish_interrupted())
        assert has_ended(other)
    service.run(service.app.ctx.generations.finish_interrupted())
    assert has_ended(failing)


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
def test_an_unacknowledged_logout_is_not_remembered(
    service: Service, alice: Actor, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Otherwise this worker would reject the token for good, and all others would accept it."""

    async def unavailable(*_: object) -> None:
        raise NetworkTimeout

    with monkeypatch.context() as patched:
        for method in ("end", "end_all"):
            patched.setattr(service.app.ctx.sessions, method, unavailable)
        response = alice.post(path)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert alice.secret_status == 200
    assert alice.post(path).status_code == 204
    assert has_ended(alice)


@pytest.mark.parametrize(("method", "path"), [("POST", "/auth/logout-all"), ("DELETE", "/auth/sessions/{}")])
def test_a_token_of_an_ended_session_ends_no_other_session(
    service: Service, alice: Actor, database: Database[Document], method: str, path: str
) -> None:
    """The worker does not know yet that the session has ended, but the write does (time of check, time of use)."""
    phone = alice.log_in()
    database.sessions.update_one({"_id": phone.claims["sid"]}, END)
    response = service(method, path.format(alice.claims["sid"]), token=phone.tokens["access_token"])
    assert (response.status_code, response.json()["code"]) == (401, "session_ended")
    assert alice.secret_status == 200
    assert alice.refresh().status_code == 200


def test_a_session_that_is_ending_cannot_be_continued(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """A worker died after it had marked the session; another one ends it, or the user does."""
    phone, tablet = alice.log_in(), alice.log_in()
    for actor in (phone, tablet):
        database.sessions.update_one({"_id": actor.claims["sid"]}, {"$set": {"ending": True}})
        assert actor.refresh().json()["code"] == "session_ended"
    listed = {one["id"] for one in alice.get("/auth/sessions").json()["sessions"]}
    assert phone.claims["sid"] in listed or has_ended(phone), "it ended if the background task was first"
    assert service(
        "DELETE", f"/auth/sessions/{phone.claims['sid']}", token=alice.tokens["access_token"]
    ).status_code in (204, 404), "404 if the background task was first"
    service.run(service.app.ctx.logins.finish_interrupted())
    assert has_ended(phone)
    assert has_ended(tablet)
