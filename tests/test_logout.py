"""Logging out: it really ends a session, and nobody else's."""

import pytest
from pymongo.database import Database

from tests.conftest import Actor, Document, Service


def over(actor: Actor) -> bool:
    """Tell whether both of an actor's tokens are refused."""
    return actor.secret_status == 401 and actor.refresh().status_code == 401


def test_logout_ends_exactly_this_session(alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    response = phone.post("/auth/logout")
    assert (response.status_code, response.content) == (204, b"")
    assert phone.get("/tests/secret").json()["code"] == "session_ended"
    assert over(phone)
    assert (alice.secret_status, bob.secret_status) == (200, 200)


def test_logout_all_ends_every_session_of_this_user(alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    assert phone.post("/auth/logout-all").status_code == 204
    assert over(phone)
    assert over(alice)
    assert bob.secret_status == 200


def test_a_login_right_after_works(alice: Actor) -> None:
    alice.post("/auth/logout-all")
    again = alice.log_in()
    assert again.secret_status == 200
    assert again.refresh().status_code == 200


def test_logging_out_twice_is_refused(alice: Actor) -> None:
    alice.post("/auth/logout")
    assert alice.post("/auth/logout").status_code == 401
    assert alice.post("/auth/logout-all").status_code == 401


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all", "/auth/me", "/auth/verify"])
def test_each_needs_an_access_token(service: Service, alice: Actor, path: str) -> None:
    method = "POST" if "logout" in path else "GET"
    assert service(method, path).status_code == 401
    assert service(method, path, token=alice.tokens["refresh_token"]).status_code == 401


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
@pytest.mark.parametrize("earlier", range(7))
def test_a_logout_wins_every_race_with_refreshes(service: Service, alice: Actor, path: str, earlier: int) -> None:
    """However many of them are on their way already, no token from before or by the race is good afterwards."""
    body = {"refresh_token": alice.tokens["refresh_token"]}
    refreshes = [service.send("POST", "/auth/refresh", json=body) for _ in range(6)]
    logout = service.send("POST", path, token=alice.tokens["access_token"])
    answers = service.together(*refreshes[:earlier], logout, *refreshes[earlier:])
    assert answers.pop(earlier).status_code == 204
    for tokens in [alice.tokens, *(answer.json() for answer in answers if answer.status_code == 200)]:
        assert over(Actor(service, alice.username, tokens))


def test_an_interrupted_logout_all_is_finished_by_somebody_else(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """A worker that dies between its two steps leaves a mark; any other takes the second one."""
    database.users.update_one({"username": alice.username}, {"$inc": {"generation": 1}, "$set": {"ending": True}})
    later = alice.log_in()
    service.run(service.app.ctx.generations.finish_interrupted())
    assert over(alice)
    assert later.secret_status == 200, "a session of the new generation goes on"
    user = database.users.find_one({"username": alice.username})
    assert user
    assert "ending" not in user
