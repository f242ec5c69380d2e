"""Regression tests for defects of sanic-jwt 1.8.0, which this service does not have.

A test marked with `unlike_stock` also runs on a minimal app with unmodified ("stock") sanic-jwt. There it must fail
with the assertion message that the mark contains. If a release of the library corrects the defect, the test reports it.
"""

import inspect
import re
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
from jwt.algorithms import HMACAlgorithm
from pymongo.database import Database
from pymongo.errors import ServerSelectionTimeoutError
from sanic_jwt.endpoints import RetrieveUserEndpoint

from app import create_app
from app.models.sessions import ROTATIONS_REMEMBERED
from config import Config
from tests.conftest import Actor, Document, Service
from tests.processes import TIMEOUT_SECONDS
from tests.stock import USER, App, add_routes, create_stock_app, stock_forge

PROTECTED_ROUTES = [
    ("GET", "/tests/secret"),
    ("GET", "/auth/verify"),
    ("GET", "/auth/me"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/logout-all"),
]
# Stock sanic-jwt turns exceptions into 401 responses; warnings raised as errors would therefore change the results.
stock_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Api:
    """A service with one connection, one user, and a function that forges tokens of this user."""

    def __init__(
        self, service: Service, create: Callable[[str], App], forge: Callable[..., str], credentials: Document
    ) -> None:
        self.app: App = service.app
        self.create = create
        self.forge = forge
        self._service = service
        self._credentials = credentials
        host, port = service.address
        self._http = httpx.AsyncClient(
            base_url=f"http://{host}:{port}", limits=httpx.Limits(max_connections=1), timeout=TIMEOUT_SECONDS
        )

    def __call__(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """Send one request; `token` goes into the Authorization header."""
        if token is not None:
            options["headers"] = {"Authorization": f"Bearer {token}"}
        response: httpx.Response = self._service.run(self._http.request(method, path, **options))
        return response

    def close(self) -> None:
        """Close the connection."""
        self._service.run(self._http.aclose())

    def secret(self, token: str) -> int:
        """Return the status of GET /tests/secret with the token."""
        return self("GET", "/tests/secret", token=token).status_code

    def log_in(self) -> Document:
        """Open a session and return its tokens."""
        tokens: Document = self("POST", "/auth", json=self._credentials).raise_for_status().json()
        return tokens

    @cached_property
    def tokens(self) -> Document:
        """The tokens of the first session."""
        return self.log_in()

    def refresh(self, refresh_token: str) -> httpx.Response:
        """Exchange a refresh token; also send the access token, which stock sanic-jwt requires."""
        token = self.tokens["access_token"]
        return self("POST", "/auth/refresh", token=token, json={"refresh_token": refresh_token})


def unlike_stock(defect: str, *, shows: str) -> pytest.MarkDecorator:
    """Run a test on both apps; on stock sanic-jwt it fails, and the assertion message contains `shows`."""
    fails = pytest.mark.xfail(
        strict=True,
        reason=f"stock sanic-jwt: {defect}",
        raises=pytest.RaisesExc(AssertionError, match=re.escape(shows)),
    )
    return pytest.mark.parametrize("api", ["ours", pytest.param("stock", marks=[fails, stock_warns])], indirect=True)


@pytest.fixture(scope="module")
def our_service(request: pytest.FixtureRequest, config: Config) -> Iterator[Service]:
    """Run a second app of this service, with the routes that it shares with the stock app."""
    request.getfixturevalue("service")  # this fixture allows several apps of one name
    app = create_app(config=config)
    app.config.AUTO_EXTEND = False
    add_routes(app)
    with Service(config, app) as running:
        yield running


@pytest.fixture(scope="module")
def stock_service(request: pytest.FixtureRequest, config: Config) -> Iterator[Service]:
    """Run the stock app."""
    request.getfixturevalue("service")  # which sets the event loop that stock sanic-jwt looks up
    with Service(config, create_stock_app(config.JWT_SECRET_KEY)) as running:
        yield running


@pytest.fixture
def ours(our_service: Service, config: Config, alice: Actor, forge: Callable[..., str]) -> Iterator[Api]:
    """Connect to this service."""

    def create(secret: str) -> App:
        return create_app(config=config.model_copy(update={"JWT_SECRET_KEY": secret}))

    api = Api(our_service, create, forge, {"username": alice.username, "password": alice.password})
    yield api
    api.close()


@pytest.fixture
def stock(stock_service: Service, config: Config) -> Iterator[Api]:
    """Connect to the stock app."""
    api = Api(stock_service, create_stock_app, stock_forge(config.JWT_SECRET_KEY), USER)
    yield api
    api.close()


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Api:
    """Connect to the app that the parameter of the test names."""
    api: Api = request.getfixturevalue(request.param)
    return api


@stock_warns
@pytest.mark.parametrize("api", ["ours", "stock"], indirect=True)
def test_both_apps_accept_a_valid_token(api: Api) -> None:
    """Otherwise the failures of the tests below would prove nothing."""
    assert api.secret(api.tokens["access_token"]) == 200
    assert api.secret(api.forge()) == 200
    assert api("GET", "/tests/admin", token=api.forge({"scopes": ["user", "admin"]})).status_code == 200
    assert api("GET", "/auth/verify", token=api.forge()).status_code == 200
    assert api.refresh(api.tokens["refresh_token"]).status_code == 200


@unlike_stock("after a failed refresh, the other routes accept an expired token", shows="[401, 401, 200] ==")
def test_an_expired_token_is_still_rejected_after_a_failed_refresh(api: Api) -> None:
    """On one connection, because stock sanic-jwt stores the setting of the refresh route on the connection's task."""
    expired = api.forge({"iat": int(time.time()) - 1060, "exp": int(time.time()) - 1000})
    before = api.secret(expired)
    refresh = api("POST", "/auth/refresh", token=expired, json={"refresh_token": "wrong"}).status_code
    # Stock sanic-jwt returns 200 for the last request, with a token that it rejected before.
    assert [before, refresh, api.secret(expired)] == [401, 401, 401]


@unlike_stock("an error in an unprotected handler disables the protection of the other routes", shows="200 == 401")
def test_a_setting_of_one_route_does_not_affect_another(api: Api) -> None:
    """On one connection as well; this service reads no setting of a route from the connection's task."""
    api("GET", "/tests/careless")
    assert api("GET", "/tests/secret").status_code == 401


@unlike_stock("every login adds its claims to the list of claims to verify", shows="2 == 0")
def test_logins_do_not_add_claims_to_verify(api: Api) -> None:
    before = len(api.app.ctx.auth.claims)
    api.log_in()
    added = len(api.app.ctx.auth.claims) - before
    assert added == 0


@unlike_stock("a token is accepted for three minutes after its expiry", shows="200 == 401")
def test_a_token_that_expired_a_second_ago_is_rejected(api: Api) -> None:
    now = int(time.time())
    assert api.secret(api.forge({"iat": now - 60, "exp": now - 1})) == 401


@pytest.mark.parametrize(
    ("claims", "headers"),
    [
        pytest.param({"exp": None}, {}, id="without an expiry"),
        pytest.param({}, {"typ": "JWT"}, id="of another type"),
        pytest.param({"aud": None}, {}, id="without an audience"),
        pytest.param({"aud": None, "scopes": None, "for": "password reset"}, {"typ": "JWT"}, id="for another purpose"),
    ],
)
@unlike_stock("any JWT signed with the key is accepted as an access token", shows="200 == 401")
def test_a_signed_jwt_that_is_not_an_access_token_is_rejected(api: Api, claims: Document, headers: Document) -> None:
    assert api.secret(api.forge(claims, headers)) == 401


def test_stale_revocations_are_503_and_not_401(ours: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is unavailable, a token cannot be verified. 503 does not make the client log in again."""
    monkeypatch.setattr(ours.app.ctx.revocations, "stale", lambda: True)
    response = ours("GET", "/tests/secret", token=ours.forge())
    assert (response.status_code, response.json()["code"]) == (503, "revocations_stale")
    assert "retry-after" in response.headers
    assert "www-authenticate" not in response.headers


def test_a_database_error_in_a_protected_view_is_503_and_not_401(ours: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_id(_: str) -> None:
        raise ServerSelectionTimeoutError

    monkeypatch.setattr(ours.app.ctx.users, "by_id", by_id)
    response = ours("GET", "/auth/me", token=ours.forge())
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")


@stock_warns
def test_stock_returns_401_if_the_database_is_unavailable(stock: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The behaviour that the test above excludes: an outage makes clients log in again."""

    async def retrieve_user_secret(**_: Any) -> str:
        raise ServerSelectionTimeoutError

    monkeypatch.setattr(stock.app.ctx.auth, "retrieve_user_secret", retrieve_user_secret)
    with stock.app.ctx.auth.override(user_secret_enabled=True):
        assert stock.secret(stock.forge()) == 401


@pytest.mark.parametrize("options", [pytest.param({}, id="no body"), pytest.param({"json": []}, id="a list")])
@unlike_stock("a refresh without a token in its body is an internal error", shows="500 < 500")
def test_a_refresh_without_a_refresh_token_is_a_client_error(api: Api, options: Document) -> None:
    status = api("POST", "/auth/refresh", token=api.forge(), **options).status_code
    assert 400 <= status < 500


@unlike_stock("a refresh also requires the access token", shows="401 == 200")
def test_a_refresh_needs_no_access_token(api: Api) -> None:
    body = {"refresh_token": api.tokens["refresh_token"]}
    assert api("POST", "/auth/refresh", json=body).status_code == 200


@unlike_stock("a refresh token is never replaced and never expires", shows="200 == 401")
def test_a_replaced_refresh_token_is_rejected(api: Api) -> None:
    """After so many rotations, the grace period for a lost response has ended, independent of the clock."""
    first = latest = api.tokens["refresh_token"]
    for _ in range(ROTATIONS_REMEMBERED + 1):
        # Stock sanic-jwt returns no new refresh token.
        latest = api.refresh(latest).raise_for_status().json().get("refresh_token", latest)
    assert api.refresh(first).status_code == 401


@unlike_stock("refresh tokens are stored in plain text", shows="not in")
def test_refresh_tokens_are_not_stored_in_plain_text(api: Api, database: Database[Document]) -> None:
    """In this service, the secret part of a refresh token is after the last full stop."""
    token = api.tokens["refresh_token"]
    stored = str([getattr(api.app.ctx, "refresh_tokens", {}), *database.sessions.find()])
    assert token.rpartition(".")[2] not in stored


@unlike_stock("a user has one refresh token, which the next login replaces", shows="401 == 200")
def test_a_login_on_another_device_keeps_the_refresh_token_valid(api: Api) -> None:
    first = api.tokens["refresh_token"]
    api.log_in()
    assert api.refresh(first).status_code == 200


@unlike_stock("a missing scope is 401 without a challenge", shows="(401, None) ==")
def test_a_missing_scope_is_403_with_an_insufficient_scope_challenge(api: Api) -> None:
    response = api("GET", "/tests/admin", token=api.forge())
    challenge = 'Bearer realm="api", error="insufficient_scope"'
    assert (response.status_code, response.headers.get("www-authenticate")) == (403, challenge)


@unlike_stock("a 401 response has no challenge", shows="None == 'Bearer")
def test_a_401_response_has_a_bearer_challenge(api: Api) -> None:
    assert api("GET", "/tests/secret").headers.get("www-authenticate") == 'Bearer realm="api"'


@unlike_stock("an error response contains the name of an exception class", shows="'exception' not in")
def test_an_error_response_contains_no_exception_class(api: Api) -> None:
    assert "exception" not in api("GET", "/tests/secret").json()


def test_views_take_only_the_request_and_path_parameters(service: Service) -> None:
    """sanic-jwt deep-copies all other arguments of a view; therefore views get stores and services from app.ctx."""
    views = [
        (route, view) for route in service.app.router.routes if (view := getattr(route.handler, "view_class", None))
    ]
    assert views
    for route, view in views:
        for handler in filter(None, (getattr(view, method.lower(), None) for method in route.methods)):
            in_path = {parameter.name for parameter in route.params.values()}
            assert set(inspect.signature(handler).parameters) == {"self", "request"} | in_path, route.path


@stock_warns
def test_stock_deep_copies_the_arguments_of_a_view(stock: Api) -> None:
    """The reason for the test above: a handler fails if an argument contains a lock, as every client does."""
    assert stock("GET", "/tests/injected", token=stock.forge()).status_code == 500


@pytest.mark.parametrize(
    ("claims", "options"),
    [
        pytest.param({}, {"algorithm": "none", "key": ""}, id="unsigned"),
        pytest.param({"sub": 1}, {}, id="with a numeric subject"),
    ],
)
@unlike_stock("some malformed tokens are internal errors", shows="500 == 401")
def test_malformed_tokens_are_rejected_with_401(api: Api, claims: Document, options: Document) -> None:
    assert api("GET", "/auth/verify", token=api.forge(claims, **options)).status_code == 401


@pytest.mark.parametrize(("method", "path"), PROTECTED_ROUTES)
def test_a_protected_view_is_protected_in_every_app(
    service: Service, our_service: Service, method: str, path: str
) -> None:
    """The decorator is on the view itself, so the order in which a process creates its apps has no effect."""
    assert [each(method, path).status_code for each in (service, our_service)] == [401, 401]


@stock_warns
def test_stock_protects_a_derived_view_only_in_later_apps(
    service: Service, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The behaviour that the test above excludes: the built-in view is decorated only after the first app exists."""
    monkeypatch.setattr(RetrieveUserEndpoint, "decorators", [])  # as in a process that has not created an app
    derived = type("Derived", (RetrieveUserEndpoint,), {})

    async def status() -> int:
        app = create_stock_app(config.JWT_SECRET_KEY, class_views=[("/derived", derived)])
        _, response = await app.asgi_client.get("/auth/derived")
        return int(response.status_code)

    assert [service.run(status()), service.run(status())] == [200, 401]


@unlike_stock("an app can only be created in a thread with an event loop", shows="There is no current event loop")
def test_an_app_can_be_created_in_a_thread_without_an_event_loop(api: Api, config: Config) -> None:
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(api.create, config.JWT_SECRET_KEY)
    assert making.exception() is None


@pytest.mark.parametrize("authorization", ["bearer {}", "BEARER {}", "Bearer  {}"])
@unlike_stock("the scheme is compared case-sensitively", shows="401 == 200")
def test_the_authentication_scheme_is_case_insensitive_and_allows_spaces(api: Api, authorization: str) -> None:
    """RFC 9110 section 11.1, and RFC 6750 section 2.1."""
    headers = {"Authorization": authorization.format(api.forge())}
    assert api("GET", "/tests/secret", headers=headers).status_code == 200


@unlike_stock("a key that is the name of a file is replaced by the content of the file", shows="'no secret' in")
def test_a_key_is_never_interpreted_as_a_file_name(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "a-key-of-32-characters-or-longer.txt"
    (tmp_path / key).write_text("no secret")
    monkeypatch.chdir(tmp_path)
    used = api.create(key).ctx.auth.config.secret()
    assert used in (key, key.encode())


@unlike_stock("a scoped view verifies the token twice for every request", shows="[2, 2] == [1, 0]")
def test_the_signature_of_a_token_is_verified_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for a request to a scoped view, and not again for the next request with the same token."""
    verify = HMACAlgorithm.verify
    verified = 0

    def counting(*arguments: Any) -> bool:
        nonlocal verified
        verified += 1
        return verify(*arguments)

    monkeypatch.setattr(HMACAlgorithm, "verify", counting)
    token = api.forge({"scopes": ["user", "admin"]})
    counts = []
    for _ in range(2):
        verified = 0
        api("GET", "/tests/admin", token=token).raise_for_status()
        counts.append(verified)
    assert counts == [1, 0]


@unlike_stock("it uses deprecated functions of PyJWT", shows="is deprecated")
def test_issuing_and_verifying_tokens_uses_no_deprecated_functions(api: Api) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api.secret(api.log_in()["access_token"])
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, DeprecationWarning)]
    assert messages == []
