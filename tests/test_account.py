"""One's own account: change the password, see and end sessions, leave."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from tests.conftest import PASSWORD, Actor, Document, Service
from tests.interleaving import Held

NEW = "a quite different sentence"


def change(alice: Actor, new: str = NEW, current: str = PASSWORD) -> httpx.Response:
    """Change the password; keep the fresh session's tokens."""
    response = alice.post("/users/me/password", {"current_password": current, "new_password": new})
    if response.status_code == 200:
        alice.tokens = response.json()
        alice.password = new
    return response


def over(actor: Actor) -> bool:
    return actor.secret_status == 401 and actor.refresh().status_code == 401


def test_a_new_password_replaces_the_old_and_ends_all_other_sessions(
    service: Service, alice: Actor, bob: Actor
) -> None:
    phone, before = alice.log_in(), Actor(service, alice.username, alice.tokens)
    response = change(alice)
    assert response.status_code == 200
    assert set(response.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert over(phone)
    assert over(before)
    assert (alice.secret_status, bob.secret_status) == (200, 200)
    assert alice.refresh().status_code == 200
    assert alice.log_in().secret_status == 200
    old = service("POST", "/auth", json={"username": alice.username, "password": PASSWORD})
    assert (old.status_code, old.json()["code"]) == (401, "wrong_credentials")


def test_without_the_current_password_nothing_changes(alice: Actor) -> None:
    response = change(alice, current="not this one")
    assert (response.status_code, response.json()["code"]) == (401, "wrong_credentials")
    assert alice.secret_status == 200
    assert alice.log_in().secret_status == 200


@pytest.mark.parametrize("new", ["short", "x" * 257, "PASSWORD123", "USERNAME"])
def test_the_new_password_keeps_the_rules(alice: Actor, new: str) -> None:
    response = change(alice, new=alice.username if new == "USERNAME" else new)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "new_password")
    assert alice.log_in().secret_status == 200


@pytest.mark.parametrize("password", ["password", "Password123", "qwertyuiop", "123456789"])
def test_a_common_password_is_refused_with_the_reason(service: Service, password: str) -> None:
    body = {"username": f"ivan-{secrets.token_hex(4)}", "password": password}
    response = service("POST", "/users/registration", json=body)
    message = "is one of the most common passwords"
    assert (response.status_code, response.json()["errors"][0]["message"]) == (422, message)


def test_of_two_password_changes_at_once_one_determines_the_password(service: Service, alice: Actor) -> None:
    words = [f"the words of change number {number}" for number in range(6)]
    token = alice.tokens["access_token"]
    bodies = [{"current_password": PASSWORD, "new_password": word} for word in words]
    answers = service.together(*(service.send("POST", "/users/me/password", token=token, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5
    winner = next(word for word, answer in zip(words, answers, strict=True) if answer.status_code == 200)
    works = [
        service("POST", "/auth", json={"username": alice.username, "password": word}).status_code
        for word in [winner, *(word for word in words if word != winner)]
    ]
    assert works == [200] + [401] * 5


@pytest.mark.parametrize(
    ("target", "method", "when"),
    [("passwords", "verify", "after"), ("logins", "open", "before"), ("logins", "open", "after")],
)
def test_a_password_change_wins_over_a_login_with_the_old_one(
    service: Service, alice: Actor, target: str, method: str, when: Any
) -> None:
    async def story() -> httpx.Response:
        with Held(getattr(service.app.ctx, target), method, when) as login_at:
            credentials = {"username": alice.username, "password": PASSWORD}
            login = asyncio.create_task(service.send("POST", "/auth", json=credentials))
            await login_at.reached()
            body = {"current_password": PASSWORD, "new_password": NEW}
            changed = await service.send("POST", "/users/me/password", token=alice.tokens["access_token"], json=body)
            assert changed.status_code == 200
            alice.tokens = changed.json()
            login_at.let_through()
            answer: httpx.Response = await login
            return answer

    answer = service.run(story())
    assert answer.status_code == 401 or over(Actor(service, alice.username, answer.json()))
    assert alice.secret_status == 200, "the session of the change itself goes on"


@pytest.mark.parametrize(
    ("target", "method", "when", "end"),
    [
        ("credentials", "reauthenticate", "before", "/auth/logout"),
        ("credentials", "reauthenticate", "before", "/auth/logout-all"),
        ("passwords", "hash", "after", "/auth/logout"),
        ("passwords", "hash", "after", "/auth/logout-all"),
        ("users", "start_generation", "before", "/auth/logout-all"),
    ],
)
def test_a_logout_wins_over_a_password_change_in_flight(
    service: Service, alice: Actor, target: str, method: str, when: Any, end: str
) -> None:
    """Its fresh session would otherwise outlive the wish to end this or everything."""

    async def story() -> httpx.Response:
        with Held(getattr(service.app.ctx, target), method, when) as change_at:
            body = {"current_password": PASSWORD, "new_password": NEW}
            token = alice.tokens["access_token"]
            changed = asyncio.create_task(service.send("POST", "/users/me/password", token=token, json=body))
            await change_at.reached()
            ended = await service.send("POST", end, token=token)
            assert ended.status_code == 204
            change_at.let_through()
            answer: httpx.Response = await changed
            return answer

    assert service.run(story()).status_code == 401
    assert over(alice)
    assert alice.log_in().secret_status == 200, "the old password is still the password"


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
    assert over(phone)
    assert alice.secret_status == 200
    assert [one["id"] for one in alice.get("/auth/sessions").json()["sessions"]] == [alice.claims["sid"]]
    assert service("DELETE", path, token=alice.tokens["access_token"]).status_code == 404


def test_a_session_that_has_expired_cannot_be_ended(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """It is in no list any more, though the database may not have swept it up yet."""
    phone = alice.log_in()
    database.sessions.update_one({"_id": phone.claims["sid"]}, [{"$set": {"expires_at": "$$NOW"}}])
    path = f"/auth/sessions/{phone.claims['sid']}"
    assert service("DELETE", path, token=alice.tokens["access_token"]).status_code == 404


def test_sessions_of_others_are_not_there(service: Service, alice: Actor, bob: Actor) -> None:
    for name in (bob.claims["sid"], "x" * 22, "x", "%00" * 22, "$ne"):
        response = service("DELETE", f"/auth/sessions/{name}", token=alice.tokens["access_token"])
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert bob.secret_status == 200


def test_whoever_leaves_is_gone_with_all_sessions(
    service: Service, register: Callable[..., Actor], database: Database[Document]
) -> None:
    alice = register()
    phone = alice.log_in()
    assert alice.post("/users/me/delete", {"current_password": "wrong"}).status_code == 401
    assert alice.post("/users/me/delete", {"current_password": PASSWORD}).status_code == 204
    assert over(alice)
    assert over(phone)
    assert service("POST", "/auth", json={"username": alice.username, "password": PASSWORD}).status_code == 401
    assert database.users.find_one({"username": alice.username}) is None
    assert register(alice.username).secret_status == 200, "the name is free again"


@pytest.mark.parametrize(("target", "method"), [("logins", "refresh"), ("logins", "open")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_leaving_wins_over_a_refresh_or_login_in_flight(
    service: Service, alice: Actor, target: str, method: str, when: Any
) -> None:
    async def story() -> httpx.Response:
        with Held(getattr(service.app.ctx, target), method, when) as door:
            request = {
                "refresh": ("/auth/refresh", {"refresh_token": alice.tokens["refresh_token"]}),
                "open": ("/auth", {"username": alice.username, "password": PASSWORD}),
            }[method]
            racing = asyncio.create_task(service.send("POST", request[0], json=request[1]))
            await door.reached()
            body = {"current_password": PASSWORD}
            gone = await service.send("POST", "/users/me/delete", token=alice.tokens["access_token"], json=body)
            assert gone.status_code == 204
            door.let_through()
            answer: httpx.Response = await racing
            return answer

    answer = service.run(story())
    assert answer.status_code == 401 or over(Actor(service, alice.username, answer.json()))


def test_an_interrupted_deletion_is_finished_by_somebody_else(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    mark = {"$inc": {"generation": 1}, "$set": {"ending": True, "deleted": True, "disabled": True}}
    database.users.update_one({"username": alice.username}, mark)
    assert alice.get("/auth/me").status_code == 401, "whoever is declared deleted is nobody"
    service.run(service.app.ctx.generations.finish_interrupted())
    assert over(alice)
    assert database.users.find_one({"username": alice.username}) is None
