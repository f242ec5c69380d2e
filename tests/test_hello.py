"""The cases of the tutorial: a public route and a protected route."""

from collections.abc import Callable

import pytest

from tests.conftest import Actor, Service


def test_the_public_route_needs_no_token(service: Service) -> None:
    response = service("GET", "/tests/hello")
    assert (response.status_code, response.json()) == (200, {"Hello": "World!"})


def test_the_protected_route_accepts_an_access_token(alice: Actor) -> None:
    response = alice.get("/tests/secret")
    assert (response.status_code, response.json()) == (200, {"Hello": "Secret!"})


def test_the_protected_route_rejects_a_request_without_a_token(service: Service) -> None:
    """Without credentials the challenge names no error (RFC 6750 section 3.1)."""
    response = service("GET", "/tests/secret")
    assert (response.status_code, response.json()["code"]) == (401, "token_missing")
    assert response.headers["www-authenticate"] == 'Bearer realm="api"'


def test_a_refresh_token_is_rejected_as_an_access_token(service: Service, alice: Actor) -> None:
    response = service("GET", "/tests/secret", token=alice.tokens["refresh_token"])
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_a_tampered_token_is_rejected(service: Service, alice: Actor) -> None:
    header, payload, signature = alice.tokens["access_token"].split(".")
    changed = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert service("GET", "/tests/secret", token=f"{header}.{payload}.{changed}").status_code == 401


def test_a_malformed_token_is_rejected(service: Service) -> None:
    assert service("GET", "/tests/secret", token="no-token").status_code == 401


@pytest.mark.parametrize("scheme", ["JWT", "Basic", "Token", "Bearerer"])
def test_other_authentication_schemes_are_rejected(service: Service, alice: Actor, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {alice.tokens['access_token']}"}
    assert service("GET", "/tests/secret", headers=headers).status_code == 401


@pytest.mark.parametrize("header", ["Bearer", "bearer", ""])
def test_a_header_without_a_token_is_rejected(service: Service, header: str) -> None:
    response = service("GET", "/tests/secret", headers={"Authorization": header})
    assert (response.status_code, response.json()["code"]) == (401, "token_missing")


def test_an_expired_token_is_rejected(service: Service, alice: Actor, forge: Callable[..., str]) -> None:
    issued = alice.claims["iat"] - 900
    response = service("GET", "/tests/secret", token=forge({"iat": issued, "exp": issued + 899}))
    assert (response.status_code, response.json()["code"]) == (401, "token_expired")
