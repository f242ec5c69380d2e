"""The tutorial's own cases: a greeting for everyone, a secret for token holders."""

from collections.abc import Callable

import pytest

from tests.conftest import Actor, Service


def test_everyone_is_greeted(service: Service) -> None:
    response = service("GET", "/tests/hello")
    assert (response.status_code, response.json()) == (200, {"Hello": "World!"})


def test_a_token_opens_the_secret(alice: Actor) -> None:
    response = alice.get("/tests/secret")
    assert (response.status_code, response.json()) == (200, {"Hello": "Secret!"})


def test_no_header_no_secret(service: Service) -> None:
    """Without credentials the challenge names no error (RFC 6750 section 3.1)."""
    response = service("GET", "/tests/secret")
    assert (response.status_code, response.json()["code"]) == (401, "token_missing")
    assert response.headers["www-authenticate"] == 'Bearer realm="api"'


def test_a_refresh_token_is_no_access_token(service: Service, alice: Actor) -> None:
    response = service("GET", "/tests/secret", token=alice.tokens["refresh_token"])
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_a_tampered_token_is_refused(service: Service, alice: Actor) -> None:
    header, payload, signature = alice.tokens["access_token"].split(".")
    changed = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert service("GET", "/tests/secret", token=f"{header}.{payload}.{changed}").status_code == 401


def test_something_that_is_no_token_is_refused(service: Service) -> None:
    assert service("GET", "/tests/secret", token="no-token").status_code == 401


@pytest.mark.parametrize("scheme", ["JWT", "Basic", "Token", "Bearerer"])
def test_another_scheme_is_refused(service: Service, alice: Actor, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {alice.tokens['access_token']}"}
    assert service("GET", "/tests/secret", headers=headers).status_code == 401


@pytest.mark.parametrize("header", ["Bearer", "bearer", ""])
def test_a_header_without_a_token_is_refused(service: Service, header: str) -> None:
    response = service("GET", "/tests/secret", headers={"Authorization": header})
    assert (response.status_code, response.json()["code"]) == (401, "token_missing")


def test_an_expired_token_is_refused(service: Service, alice: Actor, forge: Callable[..., str]) -> None:
    issued = alice.claims["iat"] - 900
    response = service("GET", "/tests/secret", token=forge({"iat": issued, "exp": issued + 899}))
    assert (response.status_code, response.json()["code"]) == (401, "token_expired")
