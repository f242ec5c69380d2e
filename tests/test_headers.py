"""Headers: what a JSON API says to browsers, and what it does not say."""

from collections.abc import Iterator

import httpx
import pytest

from config import Config
from tests.conftest import PASSWORD, Actor, Service

FRIEND, STRANGER = "https://app.example.com", "https://app.example.com.evil.example"


@pytest.fixture(scope="module")
def shared(config: Config) -> Iterator[Service]:
    """Run the service for the scripts of one origin."""
    with Service(config.model_copy(update={"CORS_ORIGINS": [FRIEND]})) as service:
        yield service


def answers(service: Service, alice: Actor) -> list[httpx.Response]:
    """Collect answers of every kind."""
    body = {"username": alice.username, "password": PASSWORD}
    return [
        service("GET", "/tests/hello"),
        service("GET", "/tests/secret"),
        alice.get("/tests/secret"),
        alice.get("/auth/me"),
        alice.get("/users"),
        service("POST", "/auth", json=body),
        service("POST", "/auth", json={**body, "password": "wrong"}),
        service("POST", "/auth", content=b"{"),
        service("POST", "/auth/refresh", json={"refresh_token": alice.tokens["refresh_token"]}),
        service("GET", "/no/such/path"),
        service("PUT", "/auth"),
        service("GET", "/health/ready"),
        alice.post("/auth/logout"),
    ]


def test_every_answer_is_what_it_says_and_for_one_reader(service: Service, alice: Actor) -> None:
    for response in answers(service, alice):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert ("content-type" in response.headers) == (response.status_code != 204)


def test_nothing_tells_what_it_is_made_of(service: Service, alice: Actor) -> None:
    for response in answers(service, alice):
        assert "server" not in response.headers
        assert "x-powered-by" not in response.headers
        assert "sanic" not in response.text.lower().replace("sanic-api-demo", "")


@pytest.mark.parametrize("origin", [FRIEND, STRANGER, "null"])
def test_without_a_setting_no_script_of_another_origin_is_let_in(service: Service, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (service("GET", "/tests/hello", headers=headers), service("OPTIONS", "/auth", headers=headers)):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_scripts_of_a_known_origin_may_bring_a_token(shared: Service) -> None:
    wanted = {
        "Origin": FRIEND,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-evil",
    }
    preflight = shared("OPTIONS", "/auth/logout", headers=wanted)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == FRIEND
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert {*preflight.headers["access-control-allow-headers"].split(",")} == {"authorization", "content-type"}
    assert "access-control-allow-credentials" not in preflight.headers
    refusal = shared("GET", "/tests/secret", headers={"Origin": FRIEND})
    assert refusal.headers["access-control-allow-origin"] == FRIEND
    assert refusal.headers["vary"].lower() == "origin"
    assert "www-authenticate" in refusal.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", [STRANGER, "null", "https://app-example.com", "http://app.example.com"])
def test_scripts_of_other_origins_may_not(shared: Service, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (shared("GET", "/tests/hello", headers=headers), shared("OPTIONS", "/auth", headers=headers)):
        assert "access-control-allow-origin" not in response.headers
