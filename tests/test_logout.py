"""Logging out: it really ends a session, and nobody else's."""

import asyncio
import random
from typing import Any

import pytest
from pymongo.database import Database

from tests.conftest import Actor, Service

Document = dict[str, Any]


def over(actor: Actor) -> bool:
    """Tell whether both of an actor's tokens are refused."""
    return actor.secret == 401 and actor.refresh().status_code == 401


def test_logout_ends_exactly_this_session(alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    response = phone.post("/auth/logout")
    assert (response.status_code, response.content) == (204, b"")
    assert phone.get("/tests/secret").json()["code"] == "session_ended"
    assert over(phone)
    assert (alice.secret, bob.secret) == (200, 200)


def test_logout_all_ends_every_session_of_this_user(alice: Actor, bob: Actor) -> None:
    phone = alice.log_in()
    assert phone.post("/auth/logout-all").status_code == 204
    assert over(phone)
    assert over(alice)
    assert bob.secret == 200


def test_a_login_right_after_works(alice: Actor) -> None:
    alice.post("/auth/logout-all")
    again = alice.log_in()
    assert again.secret == 200
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


def test_a_logout_wins_every_race_with_refreshes(service: Service, alice: Actor) -> None:
    """Whatever the interleaving, no token from before, during or by the race is good afterwards."""
    for round_number in range(15):
        phone = alice.log_in()
        path = "/auth/logout-all" if round_number % 3 == 0 else "/auth/logout"
        body = {"refresh_token": phone.tokens["refresh_token"]}

        async def logout(phone: Actor = phone, path: str = path) -> Any:
            await asyncio.sleep(random.random() * 0.01)  # noqa: S311 - where in the race it falls
            return await service.send("POST", path, token=phone.tokens["access_token"])

        async def refresh(body: Document = body) -> Any:
            await asyncio.sleep(random.random() * 0.01)  # noqa: S311
            return await service.send("POST", "/auth/refresh", json=body)

        ended, *refreshed = service.together(logout(), *(refresh() for _ in range(6)))
        assert ended.status_code == 204
        for tokens in [phone.tokens, *(answer.json() for answer in refreshed if answer.status_code == 200)]:
            assert over(Actor(service, phone.username, tokens))


def test_logout_all_wins_every_race_with_logins(service: Service, alice: Actor) -> None:
    """A login that checked its password before and opens its session after is over too; one begun after is not."""
    credentials = {"username": alice.username, "password": alice.password}
    for round_number in range(6):
        if alice.secret == 401:
            alice = alice.log_in()

        async def logout(actor: Actor = alice, round_number: int = round_number) -> Any:
            await asyncio.sleep(0.02 * round_number)
            return await service.send("POST", "/auth/logout-all", token=actor.tokens["access_token"])

        logins = [service.send("POST", "/auth", json=credentials) for _ in range(4)]
        ended, *answers = service.together(logout(), *logins)
        assert ended.status_code == 204
        assert {answer.status_code for answer in answers} <= {200, 401}


def test_an_interrupted_logout_all_is_finished_by_somebody_else(
    service: Service, alice: Actor, database: Database[Document]
) -> None:
    """A worker that dies between its two steps leaves a mark; any other takes the second one."""
    database.users.update_one({"username": alice.username}, {"$inc": {"generation": 1}, "$set": {"ending": True}})
    later = alice.log_in()
    service.run(service.app.ctx.logins.finish_interrupted())
    assert over(alice)
    assert later.secret == 200, "a session of the new generation goes on"
    user = database.users.find_one({"username": alice.username})
    assert user
    assert "ending" not in user
