"""The user's own account: change the password, list and end sessions, delete the account."""

import secrets
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from tests.conftest import PASSWORD, Actor, Document, Service
from tests.interleaving import Held, race

NEW = "a quite different sentence"


def change(alice: Actor, new: str = NEW, current: str = PASSWORD) -> httpx.Response:
    """Change the password, and keep the tokens of the new session."""
    response = alice.post("/users/me/password", {"current_password": current, "new_password": new})
    if response.status_code == 200:
        alice.tokens = response.json()
        alice.password = new
    return response


def session_ended(actor: Actor) -> bool:
    return actor.secret_status == 401 and actor.refresh().status_code == 401


def test_a_new_password_replaces_the_old_and_ends_all_other_sessions(
    service: Service, alice: Actor, bob: Actor
) -> None:
    phone, before = alice.log_in(), Actor(service, alice.username, alice.tokens)
    response = change(alice)
    assert response.status_code == 200
    assert set(response.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert session_ended(phone)
    assert session_ended(before)
    assert (alice.secret_status, bob.secret_status) == (200, 200)
    assert alice.refresh().status_code == 200
    assert alice.log_in().secret_status == 200
    old = service("POST", "/auth", json={"username": alice.username, "password": PASSWORD})
    assert (old.status_code, old.json()["code"]) == (401, "wrong_credentials")


def test_a_password_change_requires_the_current_password(alice: Actor) -> None:
    response = change(alice, current="not this one")
    assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")
    assert alice.secret_status == 200
    assert alice.log_in().secret_status == 200


@pytest.mark.parametrize("new", ["short", "x" * 257, "PASSWORD123", "USERNAME"])
def test_the_new_password_must_comply_with_the_password_rules(alice: Actor, new: str) -> None:
    response = change(alice, new=alice.username if new == "USERNAME" else new)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "new_password")
    assert alice.log_in().secret_status == 200


@pytest.mark.parametrize("password", ["password", "Password123", "qwertyuiop", "123456789"])
def test_a_common_password_is_rejected_with_the_reason(service: Service, password: str) -> None:
    body = {"username": f"ivan-{secrets.token_hex(4)}", "password": password}
    response = service("POST", "/users/registration", json=body)
    message = "is one of the most common passwords"
    assert (response.status_code, response.json()["errors"][0]["message"]) == (422, message)


def test_exactly_one_of_several_concurrent_password_changes_succeeds(service: Service, alice: Actor) -> None:
    words = [f"the words of change number {number}" for number in range(6)]
    token = alice.tokens["access_token"]
    bodies = [{"current_password": PASSWORD, "new_password": word} for word in words]
    responses = service.together(
        *(service.send("POST", "/users/me/password", token=token, json=body) for body in bodies)
    )
    assert sorted(response.status_code for response in responses) == [200] + [401] * 5
    winner = next(word for word, response in zip(words, responses, strict=True) if response.status_code == 200)
    works = [
        service("POST", "/auth", json={"username": alice.username, "password": word}).status_code
        for word in [winner, *(word for word in words if word != winner)]
    ]
    assert works == [200] + [401] * 5


@pytest.mark.parametrize(
    ("target", "method", "when"),
    [("passwords", "verify", "after"), ("logins", "open", "before"), ("logins", "open", "after")],
)
def test_a_password_change_wins_over_a_login_with_the_old_password(
    service: Service, alice: Actor, target: str, method: str, when: Any
) -> None:
    credentials = {"username": alice.username, "password": PASSWORD}
    log_in = service.send("POST", "/auth", json=credentials)
    body = {"current_password": PASSWORD, "new_password": NEW}
    change_password = service.send("POST", "/users/me/password", token=alice.tokens["access_token"], json=body)
    with Held(getattr(service.app.ctx, target), method, when) as held:
        login, changed = service.run(race(held, log_in, change_password))
    assert changed.status_code == 200
    alice.tokens = changed.json()
    assert login.status_code == 401 or session_ended(Actor(service, alice.username, login.json()))
    assert alice.secret_status == 200, "the session that the password change opened stays active"


@pytest.mark.parametrize(
    ("target", "method", "when", "path"),
    [
        ("credentials", "reauthenticate", "before", "/auth/logout"),
        ("credentials", "reauthenticate", "before", "/auth/logout-all"),
        ("passwords", "hash_new", "after", "/auth/logout"),
        ("passwords", "hash_new", "after", "/auth/logout-all"),
        ("users", "start_generation", "before", "/auth/logout"),
        ("users", "start_generation", "before", "/auth/logout-all"),
    ],
)
def test_a_logout_wins_over_a_password_change_in_flight(
    service: Service, alice: Actor, target: str, method: str, when: Any, path: str
) -> None:
    """Otherwise the session that the password change opens would stay active after the logout."""
    body = {"current_password": PASSWORD, "new_password": NEW}
    token = alice.tokens["access_token"]
    change_password = service.send("POST", "/users/me/password", token=token, json=body)
    log_out = service.send("POST", path, token=token)
    with Held(getattr(service.app.ctx, target), method, when) as held:
        changed, logout = service.run(race(held, change_password, log_out))
    assert logout.status_code == 204
    assert changed.status_code == 401
    assert session_ended(alice)
    assert alice.log_in().secret_status == 200, "the old password is still valid"


def test_sessions_are_listed_with_the_current_one_marked(service: Service, alice: Actor, bob: Actor) -> None:
    body = {"username": alice.username, "password": PASSWORD}
    phone = Actor(service, alice.username, service("POST", "/auth", json=body, headers={"User-Agent": "Phone"}).json())
    alice.refresh()
    listed = alice.get("/auth/sessions").json()["sessions"]
    assert [session["id"] for session in listed] == [phone.claims["sid"], alice.claims["sid"]]
    assert [session["current"] for session in listed] == [False, True]
    assert (listed[0]["user_agent"], listed[0]["address"]) == ("Phone", "127.0.0.1")
    assert listed[1]["refreshed_at"] > listed[1]["created_at"]
    assert set(listed[0]) == {"id", "created_at", "refreshed_at", "address", "user_agent", "current"}
    assert bob.claims["sid"] not in str(listed)


def test_one_session_can_be_ended_from_another(service: Service, alice: Actor) -> None:
    phone = alice.log_in()
    path = f"/auth/sessions/{phone.claims['sid']}"
    assert service("DELETE", path, token=alice.tokens["access_token"]).status_code == 204
    assert session_ended(phone)
    assert alice.secret_status == 200
    assert [one["id"] for one in alice.get("/auth/sessions").json()["sessions"]] == [alice.claims["sid"]]
    assert service("DELETE", path, token=alice.tokens["access_token"]).status_code == 404


def test_an_expired_session_cannot_be_ended(service: Service, alice: Actor, database: Database[Document]) -> None:
    """It is not listed, even if MongoDB's TTL index has not removed it yet."""
    phone = alice.log_in()
    database.sessions.update_one({"_id": phone.claims["sid"]}, [{"$set": {"expires_at": "$$NOW"}}])
    path = f"/auth/sessions/{phone.claims['sid']}"
    assert service("DELETE", path, token=alice.tokens["access_token"]).status_code == 404


def test_sessions_of_other_users_are_not_found(service: Service, alice: Actor, bob: Actor) -> None:
    for name in (bob.claims["sid"], "x" * 22, "x", "%00" * 22, "$ne"):
        response = service("DELETE", f"/auth/sessions/{name}", token=alice.tokens["access_token"])
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert bob.secret_status == 200


def test_account_deletion_removes_the_user_and_ends_all_sessions(
    service: Service, register: Callable[..., Actor], database: Database[Document]
) -> None:
    alice = register()
    phone = alice.log_in()
    assert alice.post("/users/me/delete", {"current_password": "wrong"}).status_code == 401
    assert alice.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
    assert session_ended(alice)
    assert session_ended(phone)
    assert service("POST", "/auth", json={"username": alice.username, "password": PASSWORD}).status_code == 401
    assert database.users.find_one({"username": alice.username}) is None
    assert register(alice.username).secret_status == 200, "the name is available again"


@pytest.mark.parametrize(("target", "method"), [("logins", "refresh"), ("logins", "open")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_account_deletion_wins_over_a_refresh_or_login_in_flight(
    service: Service, alice: Actor, target: str, method: str, when: Any
) -> None:
    path, body = {
        "refresh": ("/auth/refresh", {"refresh_token": alice.tokens["refresh_token"]}),
        "open": ("/auth", {"username": alice.username, "password": PASSWORD}),
    }[method]
    request = service.send("POST", path, json=body)
    delete_account = service.send(
        "POST", "/users/me/delete", token=alice.tokens["access_token"], json={"current_password": PASSWORD}
    )
    with Held(getattr(service.app.ctx, target), method, when) as held:
        response, deleted = service.run(race(held, request, delete_account))
    assert deleted.status_code == 204
    assert response.status_code == 401 or session_ended(Actor(service, alice.username, response.json()))


def test_an_interrupted_account_deletion_is_completed_later(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    mark = {"$inc": {"generation": 1}, "$set": {"ending": True, "deleted": True, "disabled": True}}
    database.users.update_one({"username": alice.username}, mark)
    assert alice.get("/auth/me").status_code == 401, "a user that is marked as deleted is rejected"
    service.run(service.app.ctx.generations.finish_interrupted())
    assert session_ended(alice)
    assert database.users.find_one({"username": alice.username}) is None


def test_a_deletion_removes_the_personal_data_of_sessions(alice: Actor, database: Database[Document]) -> None:
    """The ended sessions themselves stay until no access token of them is valid."""
    phone = alice.log_in()
    assert alice.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
    sessions = list(database.sessions.find({"user_id": alice.claims["sub"]}))
    assert {one["_id"] for one in sessions} == {alice.claims["sid"], phone.claims["sid"]}
    assert all(one["ended"] and "address" not in one and "user_agent" not in one for one in sessions)
