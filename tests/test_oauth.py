"""The OAuth 2.0 endpoints: RFC 6749 and RFC 7009, and clients that others have written."""

import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session as RequestsSession

from config import Config
from tests.conftest import PASSWORD, Actor, Service
from tests.processes import until
from tests.serving import new_name, started

FORM = {"content-type": "application/x-www-form-urlencoded"}


def ask(service: Service, **parameters: str) -> httpx.Response:
    """Ask for tokens."""
    return service("POST", "/oauth/token", data=parameters)


def test_a_password_is_exchanged_for_tokens(service: Service, alice: Actor) -> None:
    response = ask(service, grant_type="password", username=alice.username, password=PASSWORD)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    tokens = response.json()
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "guest user")
    assert service("GET", "/tests/secret", token=tokens["access_token"]).status_code == 200
    refreshed = ask(service, grant_type="refresh_token", refresh_token=tokens["refresh_token"]).json()
    assert service("GET", "/tests/secret", token=refreshed["access_token"]).status_code == 200
    assert refreshed["refresh_token"] != tokens["refresh_token"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=password", "invalid_request"),
        ("grant_type=password&username=alice", "invalid_request"),
        ("grant_type=password&username=alice&password=", "invalid_request"),
        ("grant_type=password&grant_type=password&username=a&password=b", "invalid_request"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=password&username=%FF&password=x", "invalid_request"),
        ("grant_type=password&username=\xe9&password=x", "invalid_request"),
        ("&".join(f"a{number}=1" for number in range(100)), "invalid_request"),
        ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
        ("grant_type=client_credentials", "unsupported_grant_type"),
        ("grant_type=password&username=nobody&password=wrong", "invalid_grant"),
        ("grant_type=password&username=a%00b&password=%00", "invalid_grant"),
        ("grant_type=refresh_token&refresh_token=x", "invalid_grant"),
    ],
)
def test_errors_have_the_form_of_the_standard(service: Service, body: str, error: str) -> None:
    response = service("POST", "/oauth/token", content=body.encode("latin-1"), headers=FORM)
    assert (response.status_code, response.json()["error"]) == (400, error), response.text
    assert set(response.json()) == {"error", "error_description"}
    assert response.headers["cache-control"] == "no-store"


def test_json_is_no_form(service: Service) -> None:
    for path in ("/oauth/token", "/oauth/revoke"):
        response = service("POST", path, json={"grant_type": "password", "token": "x"})
        assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_parameters_that_are_not_known_are_ignored(service: Service, alice: Actor) -> None:
    parameters = {"grant_type": "password", "username": alice.username, "password": PASSWORD}
    assert ask(service, **parameters, client_id="x", scope="admin", resource="y").json()["scope"] == "guest user"


def test_passwords_are_throttled_as_by_the_other_login(config: Config, alice: Actor) -> None:
    with Service(config.model_copy(update={"LOGIN_FAILURES_PER_PAIR": "3/hour"})) as service:
        wrong = {"grant_type": "password", "username": alice.username, "password": "wrong"}
        statuses = [ask(service, **wrong).status_code for _ in range(4)]
        assert statuses == [400, 400, 400, 429]
        assert int(ask(service, **wrong).headers["retry-after"]) > 0
        login = service("POST", "/auth", json={"username": alice.username, "password": PASSWORD})
        assert login.status_code == 429


def test_the_password_grant_can_be_switched_off(config: Config, alice: Actor) -> None:
    """RFC 9700 section 2.4."""
    with Service(config.model_copy(update={"OAUTH_PASSWORD_GRANT": False})) as service:
        refused = ask(service, grant_type="password", username=alice.username, password=PASSWORD)
        assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_grant_type")
        refreshed = ask(service, grant_type="refresh_token", refresh_token=alice.tokens["refresh_token"])
        assert refreshed.status_code == 200


def test_an_ended_session_is_an_invalid_grant(service: Service, alice: Actor) -> None:
    assert alice.post("/auth/logout").status_code == 204
    refused = ask(service, grant_type="refresh_token", refresh_token=alice.tokens["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


# RFC 7009


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "unknown"])
def test_a_revoked_token_ends_its_session(service: Service, alice: Actor, kind: str, hint: str | None) -> None:
    body = {"token": alice.tokens[kind]} | ({"token_type_hint": hint} if hint else {})
    response = service("POST", "/oauth/revoke", data=body)
    assert (response.status_code, response.content) == (200, b"")
    assert alice.secret_status == 401
    assert alice.refresh().status_code == 401


def test_an_expired_access_token_can_be_revoked(service: Service, alice: Actor, forge: Any) -> None:
    now = int(time.time())
    expired = forge({**alice.claims, "iat": now - 600, "exp": now - 300})
    assert service("GET", "/tests/secret", token=expired).status_code == 401
    assert service("POST", "/oauth/revoke", data={"token": expired}).status_code == 200
    assert alice.secret_status == 401


def test_a_token_that_is_not_valid_is_answered_in_the_same_way(service: Service, alice: Actor) -> None:
    signed = alice.tokens["access_token"]
    for wrong in ("x", signed[:-4] + "AAAA", alice.tokens["refresh_token"][:-4] + "AAAA"):
        response = service("POST", "/oauth/revoke", data={"token": wrong})
        assert (response.status_code, response.content) == (200, b"")
    assert alice.secret_status == 200
    missing = service("POST", "/oauth/revoke", data={})
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")


# Clients of others


@pytest.fixture(scope="module")
def url(mongo_uri: str) -> Iterator[str]:
    """Run the service in processes of its own, whose tokens live for two seconds."""
    with started(f"{mongo_uri}_oauth", variables={"APP_ACCESS_TOKEN_SECONDS": "2"}) as (server, port):
        server.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def username(url: str) -> str:
    """Register a user."""
    name = new_name()
    body = {"username": name, "password": PASSWORD}
    assert httpx.post(f"{url}/users/registration", json=body, trust_env=False).status_code == 201
    return name


def until_expired(url: str, token: dict[str, Any]) -> None:
    """Wait until neither the service nor the client takes a token for valid."""
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    until(lambda: httpx.get(f"{url}/tests/secret", headers=headers, trust_env=False).status_code == 401, "expired")
    until(lambda: time.time() > token["expires_at"], "expired by the client's clock")


def test_authlib_logs_in_and_refreshes_by_itself(url: str, username: str) -> None:
    renewed: list[str] = []

    def store(token: dict[str, Any], **before: str) -> None:
        assert before["refresh_token"]
        renewed.append(token["access_token"])

    with AuthlibSession(
        "a-client", token_endpoint=f"{url}/oauth/token", update_token=store, token_endpoint_auth_method="none", leeway=0
    ) as session:
        session.trust_env = False
        session.fetch_token(username=username, password=PASSWORD)
        assert session.get(f"{url}/tests/secret").status_code == 200
        until_expired(url, session.token)
        assert session.get(f"{url}/tests/secret").json() == {"Hello": "Secret!"}
        assert len(renewed) == 1
        last = session.token["refresh_token"]
        assert session.revoke_token(f"{url}/oauth/revoke", token=last).status_code == 200
        assert session.get(f"{url}/tests/secret").status_code == 401


def test_requests_oauthlib_logs_in_and_refreshes_by_itself(
    url: str, username: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # it requires https, and this is loopback
    renewed: list[Any] = []
    with RequestsSession(
        client=LegacyApplicationClient("a-client"), auto_refresh_url=f"{url}/oauth/token", token_updater=renewed.append
    ) as session:
        session.trust_env = False
        with pytest.raises(InvalidGrantError):
            session.fetch_token(f"{url}/oauth/token", username=username, password=secrets.token_hex(8))
        session.fetch_token(f"{url}/oauth/token", username=username, password=PASSWORD)
        assert session.get(f"{url}/tests/secret").status_code == 200
        until_expired(url, session.token)
        assert session.get(f"{url}/tests/secret").json() == {"Hello": "Secret!"}
        assert len(renewed) == 1


def test_spaces_and_other_characters_of_a_password_arrive(service: Service) -> None:
    name, password = f"user-{secrets.token_hex(6)}", "ünïcode & plus + percent % equals ="
    assert service("POST", "/users/registration", json={"username": name, "password": password}).status_code == 201
    body = urlencode({"grant_type": "password", "username": name, "password": password})
    assert service("POST", "/oauth/token", content=body, headers=FORM).status_code == 200
