"""Races between requests that end sessions and requests that open or refresh them."""

from typing import Any

import httpx
import pytest

from tests.conftest import PASSWORD, Actor, Service
from tests.interleaving import Held, hang_up_at, race


def log_in(service: Service, alice: Actor) -> Any:
    return service.send("POST", "/auth", json={"username": alice.username, "password": alice.password})


def refresh(service: Service, alice: Actor) -> Any:
    return service.send("POST", "/auth/refresh", json={"refresh_token": alice.tokens["refresh_token"]})


def assert_no_valid_tokens(service: Service, response: httpx.Response) -> None:
    """Fail if a response contains valid tokens."""
    if response.status_code == 200:
        actor = Actor(service, "", response.json())
        assert actor.secret_status == 401
        assert actor.refresh().status_code == 401
    else:
        assert response.status_code == 401


@pytest.mark.parametrize(
    ("store", "method", "when"),
    [("sessions", "open", "before"), ("sessions", "open", "after"), ("users", "by_id", "after")],
)
def test_logout_all_wins_over_a_login_in_flight(
    service: Service, alice: Actor, store: str, method: str, when: Any
) -> None:
    """The password is verified before the logout; the session is opened, read or returned after it."""
    logout_all = service.send("POST", "/auth/logout-all", token=alice.tokens["access_token"])
    with Held(getattr(service.app.ctx, store), method, when) as held:
        login, logout = service.run(race(held, log_in(service, alice), logout_all))
    assert logout.status_code == 204
    assert_no_valid_tokens(service, login)


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_logout_wins_over_a_refresh_in_flight(service: Service, alice: Actor, path: str, when: Any) -> None:
    log_out = service.send("POST", path, token=alice.tokens["access_token"])
    with Held(service.app.ctx.sessions, "rotate", when) as held:
        refreshed, logout = service.run(race(held, refresh(service, alice), log_out))
    assert logout.status_code == 204
    assert_no_valid_tokens(service, refreshed)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_password_change_wins_over_a_refresh_in_flight(service: Service, alice: Actor, when: Any) -> None:
    body = {"current_password": PASSWORD, "new_password": "a quite different sentence"}
    change = service.send("POST", "/users/me/password", token=alice.tokens["access_token"], json=body)
    with Held(service.app.ctx.sessions, "rotate", when) as held:
        refreshed, changed = service.run(race(held, refresh(service, alice), change))
    assert changed.status_code == 200
    assert_no_valid_tokens(service, refreshed)


def test_a_logout_is_completed_although_the_client_disconnects(service: Service, alice: Actor) -> None:
    """A disconnect cancels the handler; both steps of the logout are completed nevertheless."""
    phone = alice.log_in()

    logout = service.send("POST", "/auth/logout-all", token=alice.tokens["access_token"])
    with Held(service.app.ctx.users, "start_generation", "after") as held:
        assert service.run(hang_up_at(held, logout)) == []
    assert (alice.secret_status, phone.secret_status) == (401, 401)
