"""Logout ends sessions of the same user only."""

import pytest
from pymongo.database import Database

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
