"""Races with the order that hurts most: whoever ends sessions wins."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.conftest import PASSWORD, Actor, Service
from tests.interleaving import Held, hang_up_at


def log_in(service: Service, alice: Actor) -> Any:
    return service.send("POST", "/auth", json={"username": alice.username, "password": alice.password})


def refresh(service: Service, alice: Actor) -> Any:
    return service.send("POST", "/auth/refresh", json={"refresh_token": alice.tokens["refresh_token"]})


def assert_over(service: Service, answer: httpx.Response) -> None:
    """Show that an answer gave no tokens, or none that are still good."""
    if answer.status_code == 200:
        actor = Actor(service, "", answer.json())
        assert actor.secret_status == 401
        assert actor.refresh().status_code == 401
    else:
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("store", "method", "when"),
    [("sessions", "open", "before"), ("sessions", "open", "after"), ("users", "by_id", "after")],
)
def test_logout_all_wins_over_a_login_in_flight(
    service: Service, alice: Actor, store: str, method: str, when: Any
) -> None:
    """The password was right before; the session is opened, looked at or answered after."""

    async def story() -> httpx.Response:
        with Held(getattr(service.app.ctx, store), method, when) as login_at:
            login = asyncio.create_task(log_in(service, alice))
            await login_at.reached()
            ended = await service.send("POST", "/auth/logout-all", token=alice.tokens["access_token"])
            assert ended.status_code == 204
            login_at.let_through()
            answer: httpx.Response = await login
            return answer

    assert_over(service, service.run(story()))


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_logout_wins_over_a_refresh_in_flight(service: Service, alice: Actor, path: str, when: Any) -> None:
    async def story() -> httpx.Response:
        with Held(service.app.ctx.sessions, "rotate", when) as refresh_at:
            refreshed = asyncio.create_task(refresh(service, alice))
            await refresh_at.reached()
            ended = await service.send("POST", path, token=alice.tokens["access_token"])
            assert ended.status_code == 204
            refresh_at.let_through()
            answer: httpx.Response = await refreshed
            return answer

    assert_over(service, service.run(story()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_password_change_wins_over_a_refresh_in_flight(service: Service, alice: Actor, when: Any) -> None:
    async def story() -> httpx.Response:
        with Held(service.app.ctx.sessions, "rotate", when) as refresh_at:
            refreshed = asyncio.create_task(refresh(service, alice))
            await refresh_at.reached()
            body = {"current_password": PASSWORD, "new_password": "a quite different sentence"}
            token = alice.tokens["access_token"]
            assert (await service.send("POST", "/users/me/password", token=token, json=body)).status_code == 200
            refresh_at.let_through()
            answer: httpx.Response = await refreshed
            return answer

    assert_over(service, service.run(story()))


def test_a_logout_is_finished_although_the_client_leaves_in_between(service: Service, alice: Actor) -> None:
    """A client that hangs up cancels its handler; both steps are taken all the same."""
    phone = alice.log_in()

    with Held(service.app.ctx.users, "start_generation", "after") as logout_at:
        logout = service.send("POST", "/auth/logout-all", token=alice.tokens["access_token"])
        assert service.run(hang_up_at(logout_at, logout)) == []
    assert (alice.secret_status, phone.secret_status) == (401, 401)
