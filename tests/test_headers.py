"""Security headers and CORS headers of the responses."""

from collections.abc import Iterator

import httpx
import pytest

from config import Config
from config.product import SLUG
from tests.conftest import PASSWORD, Actor, Service

ALLOWED_ORIGIN, OTHER_ORIGIN = "https://app.example.com", "https://app.example.com.evil.example"


@pytest.fixture(scope="module")
def cors_service(config: Config) -> Iterator[Service]:
    """Run the service with one allowed origin."""
    with Service(config.model_copy(update={"CORS_ORIGINS": [ALLOWED_ORIGIN]})) as service:
        yield service


def responses(service: Service, alice: Actor) -> list[httpx.Response]:
    """Return responses of every kind."""
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


def test_every_response_has_nosniff_and_no_store(service: Service, alice: Actor) -> None:
    for response in responses(service, alice):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert ("content-type" in response.headers) == (response.status_code != 204)


def test_no_response_reveals_the_server_software(service: Service, alice: Actor) -> None:
    for response in responses(service, alice):
        assert "server" not in response.headers
        assert "x-powered-by" not in response.headers
        assert "sanic" not in response.text.lower().replace(SLUG, "")


@pytest.mark.parametrize("origin", [ALLOWED_ORIGIN, OTHER_ORIGIN, "null"])
def test_without_configuration_there_are_no_cors_headers(service: Service, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (service("GET", "/tests/hello", headers=headers), service("OPTIONS", "/auth", headers=headers)):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_an_allowed_origin_can_send_a_token(cors_service: Service) -> None:
    headers = {
        "Origin": ALLOWED_ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-evil",
    }
    preflight = cors_service("OPTIONS", "/auth/logout", headers=headers)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert {*preflight.headers["access-control-allow-headers"].split(",")} == {"authorization", "content-type"}
    assert "access-control-allow-credentials" not in preflight.headers
    rejected = cors_service("GET", "/tests/secret", headers={"Origin": ALLOWED_ORIGIN})
    assert rejected.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert rejected.headers["vary"].lower() == "origin"
    assert "www-authenticate" in rejected.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", [OTHER_ORIGIN, "null", "https://app-example.com", "http://app.example.com"])
def test_other_origins_are_not_allowed(cors_service: Service, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for response in (
        cors_service("GET", "/tests/hello", headers=headers),
        cors_service("OPTIONS", "/auth", headers=headers),
    ):
        assert "access-control-allow-origin" not in response.headers
