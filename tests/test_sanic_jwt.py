"""The defects of sanic-jwt 1.8.0: each test passes on our service and fails on the stock library.

The second half of that is part of the suite. A test marked with `unlike_stock` also runs on a minimal app on stock
sanic-jwt, where it must fail, and fail in the way that the mark shows: when a release of the library puts
the defect right, the test says so.
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
from tests.stock import USER, App, add_routes, create_stock_app, stock_forge

GUARDED = [
    ("GET", "/tests/secret"),
    ("GET", "/auth/verify"),
    ("GET", "/auth/me"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/logout-all"),
]
# As errors they would become the 401 that stock sanic-jwt makes of everything.
stock_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Api:
    """A service, one connection to it, one user of it, and tokens that might pass for that user's."""

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
            base_url=f"http://{host}:{port}", limits=httpx.Limits(max_connections=1), timeout=20
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
        """Return the status that /tests/secret answers to a token."""
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
        """Exchange a refresh token, with the access token that stock sanic-jwt wants to see as well."""
        token = self.tokens["access_token"]
        return self("POST", "/auth/refresh", token=token, json={"refresh_token": refresh_token})


def unlike_stock(defect: str, *, shows: str) -> pytest.MarkDecorator:
    """Run a test on both; the failed assertion on stock sanic-jwt `shows` the defect."""
    fails = pytest.mark.xfail(
        strict=True,
        reason=f"stock sanic-jwt: {defect}",
        raises=pytest.RaisesExc(AssertionError, match=re.escape(shows)),
    )
    return pytest.mark.parametrize("api", ["ours", pytest.param("stock", marks=[fails, stock_warns])], indirect=True)


@pytest.fixture(scope="module")
def our_service(request: pytest.FixtureRequest, config: Config) -> Iterator[Service]:
    """Run a second app of ours, with the routes that it has in common with the stock one."""
    request.getfixturevalue("service")  # the first app, which allows more of one name
    app = create_app(config=config)
    app.config.AUTO_EXTEND = False
    add_routes(app)
    with Service(config, app) as running:
        yield running


@pytest.fixture(scope="module")
def stock_service(request: pytest.FixtureRequest, config: Config) -> Iterator[Service]:
    """Run the stock app."""
    request.getfixturevalue("service")  # which leaves an event loop where stock sanic-jwt looks for one
    with Service(config, create_stock_app(config.JWT_SECRET_KEY)) as running:
        yield running


@pytest.fixture
def ours(our_service: Service, config: Config, alice: Actor, forge: Callable[..., str]) -> Iterator[Api]:
    """Connect to our service."""

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
    """Connect to the app that the test's parameter names."""
    api: Api = request.getfixturevalue(request.param)
    return api


@stock_warns
@pytest.mark.parametrize("api", ["ours", "stock"], indirect=True)
def test_on_both_a_good_token_opens_what_it_should(api: Api) -> None:
    """Else the failures below would show nothing."""
    assert api.secret(api.tokens["access_token"]) == 200
    assert api.secret(api.forge()) == 200
    assert api("GET", "/tests/admin", token=api.forge({"scopes": ["user", "admin"]})).status_code == 200
    assert api("GET", "/auth/verify", token=api.forge()).status_code == 200
    assert api.refresh(api.tokens["refresh_token"]).status_code == 200


@unlike_stock("a refresh that fails lets an expired token into the other routes", shows="[401, 401, 200] ==")
def test_an_expired_token_stays_refused_after_a_failed_refresh(api: Api) -> None:
    """On one connection, since stock sanic-jwt keeps the refresh route's leniency on the connection's task."""
    expired = api.forge({"iat": int(time.time()) - 1060, "exp": int(time.time()) - 1000})
    before = api.secret(expired)
    refresh = api("POST", "/auth/refresh", token=expired, json={"refresh_token": "wrong"}).status_code
    # This was the stock behaviour: the last answer is 200, to a token that was refused a moment before.
    assert [before, refresh, api.secret(expired)] == [401, 401, 401]


@unlike_stock("an unprotected handler that fails opens the other routes to everyone", shows="200 == 401")
def test_a_setting_of_one_route_does_not_reach_another(api: Api) -> None:
    """Again on one connection; no setting of a route is looked for on the task."""
    api("GET", "/tests/careless")
    assert api("GET", "/tests/secret").status_code == 401


@unlike_stock("every login adds its claims to the list of those to be checked", shows="2 == 0")
def test_logins_leave_no_trace_in_what_is_checked(api: Api) -> None:
    before = len(api.app.ctx.auth.claims)
    api.log_in()
    grown = len(api.app.ctx.auth.claims) - before
    assert grown == 0


@unlike_stock("a token lives three minutes longer than it says", shows="200 == 401")
def test_a_token_that_expired_a_second_ago_is_refused(api: Api) -> None:
    now = int(time.time())
    assert api.secret(api.forge({"iat": now - 60, "exp": now - 1})) == 401


@pytest.mark.parametrize(
    ("claims", "headers"),
    [
        pytest.param({"exp": None}, {}, id="without an expiry"),
        pytest.param({}, {"typ": "JWT"}, id="of another type"),
        pytest.param({"aud": None}, {}, id="for nobody in particular"),
        pytest.param({"aud": None, "scopes": None, "for": "password reset"}, {"typ": "JWT"}, id="for another purpose"),
    ],
)
@unlike_stock("any JWT that the key has signed is an access token", shows="200 == 401")
def test_the_right_signature_is_not_enough(api: Api, claims: Document, headers: Document) -> None:
    assert api.secret(api.forge(claims, headers)) == 401


def test_not_knowing_is_no_refusal(ours: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that cannot be judged while the database is away is answered 503: there is no need to log in again."""
    monkeypatch.setattr(ours.app.ctx.revocations, "stale", lambda: True)
    response = ours("GET", "/tests/secret", token=ours.forge())
    assert (response.status_code, response.json()["code"]) == (503, "revocations_stale")
    assert "retry-after" in response.headers
    assert "www-authenticate" not in response.headers


def test_a_guarded_view_whose_store_fails_is_no_refusal_either(ours: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_id(_: str) -> None:
        raise ServerSelectionTimeoutError

    monkeypatch.setattr(ours.app.ctx.users, "by_id", by_id)
    response = ours("GET", "/auth/me", token=ours.forge())
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")


@stock_warns
def test_stock_takes_a_database_that_is_away_for_a_bad_token(stock: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above replaces: an outage reads as "log in again"."""

    async def retrieve_user_secret(**_: Any) -> str:
        raise ServerSelectionTimeoutError

    monkeypatch.setattr(stock.app.ctx.auth, "retrieve_user_secret", retrieve_user_secret)
    with stock.app.ctx.auth.override(user_secret_enabled=True):
        assert stock.secret(stock.forge()) == 401


@pytest.mark.parametrize("options", [pytest.param({}, id="no body"), pytest.param({"json": []}, id="a list")])
@unlike_stock("a refresh without a token in its body is an internal error", shows="500 < 500")
def test_a_refresh_without_a_refresh_token_is_the_clients_mistake(api: Api, options: Document) -> None:
    status = api("POST", "/auth/refresh", token=api.forge(), **options).status_code
    assert 400 <= status < 500


@unlike_stock("a refresh wants the access token too", shows="401 == 200")
def test_a_refresh_needs_no_access_token(api: Api) -> None:
    body = {"refresh_token": api.tokens["refresh_token"]}
    assert api("POST", "/auth/refresh", json=body).status_code == 200


@unlike_stock("a refresh token is never replaced and works for ever", shows="200 == 401")
def test_a_refresh_token_that_was_replaced_stops_working(api: Api) -> None:
    """After so many others, the grace for an answer that was lost is over whatever the clock says."""
    first = latest = api.tokens["refresh_token"]
    for _ in range(ROTATIONS_REMEMBERED + 1):
        latest = api.refresh(latest).raise_for_status().json().get("refresh_token", latest)  # stock gives no other
    assert api.refresh(first).status_code == 401


@unlike_stock("refresh tokens are kept as they are", shows="not in")
def test_no_refresh_token_can_be_taken_from_the_store(api: Api, database: Database[Document]) -> None:
    """Of ours, what makes it a token comes after the last full stop."""
    token = api.tokens["refresh_token"]
    stored = str([getattr(api.app.ctx, "refresh_tokens", {}), *database.sessions.find()])
    assert token.rpartition(".")[2] not in stored


@unlike_stock("a user has one refresh token, which the next login replaces", shows="401 == 200")
def test_a_login_on_another_device_leaves_the_refresh_token_good(api: Api) -> None:
    first = api.tokens["refresh_token"]
    api.log_in()
    assert api.refresh(first).status_code == 200


@unlike_stock("a missing scope is unauthorized and challenged with nothing", shows="(401, None) ==")
def test_a_missing_scope_is_forbidden_and_named(api: Api) -> None:
    response = api("GET", "/tests/admin", token=api.forge())
    challenge = 'Bearer realm="api", error="insufficient_scope"'
    assert (response.status_code, response.headers.get("www-authenticate")) == (403, challenge)


@unlike_stock("a refusal has no challenge", shows="None == 'Bearer")
def test_a_refusal_says_what_is_needed(api: Api) -> None:
    assert api("GET", "/tests/secret").headers.get("www-authenticate") == 'Bearer realm="api"'


@unlike_stock("a refusal tells the name of a class", shows="'exception' not in")
def test_a_refusal_does_not_tell_the_name_of_a_class(api: Api) -> None:
    assert "exception" not in api("GET", "/tests/secret").json()


def test_views_take_nothing_but_the_request_and_what_the_path_says(service: Service) -> None:
    """What a view is given otherwise, sanic-jwt copies deeply; so stores and services are reached at app.ctx."""
    views = [
        (route, view) for route in service.app.router.routes if (view := getattr(route.handler, "view_class", None))
    ]
    assert views
    for route, view in views:
        for handler in filter(None, (getattr(view, method.lower(), None) for method in route.methods)):
            in_path = {parameter.name for parameter in route.params.values()}
            assert set(inspect.signature(handler).parameters) == {"self", "request"} | in_path, route.path


@stock_warns
def test_stock_copies_what_a_view_is_given(stock: Api) -> None:
    """What the test above is there for: a handler that is given a thing with a lock, as every client has, fails."""
    assert stock("GET", "/tests/injected", token=stock.forge()).status_code == 500


@pytest.mark.parametrize(
    ("claims", "options"),
    [
        pytest.param({}, {"algorithm": "none", "key": ""}, id="unsigned"),
        pytest.param({"sub": 1}, {}, id="for a number"),
    ],
)
@unlike_stock("some tokens are too bad to be refused", shows="500 == 401")
def test_the_worst_token_is_refused_like_a_bad_one(api: Api, claims: Document, options: Document) -> None:
    assert api("GET", "/auth/verify", token=api.forge(claims, **options)).status_code == 401


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_guarded_view_is_guarded_in_every_app(service: Service, our_service: Service, method: str, path: str) -> None:
    """Its guard is named at the view, so it does not matter which app of the process is made first."""
    assert [each(method, path).status_code for each in (service, our_service)] == [401, 401]


@stock_warns
def test_stock_guards_a_derived_view_in_later_apps_only(
    service: Service, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above replaces: the built-in view gets its guard when the first app is already made."""
    monkeypatch.setattr(RetrieveUserEndpoint, "decorators", [])  # as in a process in which there was no app yet
    derived = type("Derived", (RetrieveUserEndpoint,), {})

    async def status() -> int:
        app = create_stock_app(config.JWT_SECRET_KEY, class_views=[("/derived", derived)])
        _, response = await app.asgi_client.get("/auth/derived")
        return int(response.status_code)

    assert [service.run(status()), service.run(status())] == [200, 401]


@unlike_stock("an app can only be made where there is an event loop", shows="There is no current event loop")
def test_an_app_can_be_made_in_a_thread_without_an_event_loop(api: Api, config: Config) -> None:
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(api.create, config.JWT_SECRET_KEY)
    assert making.exception() is None


@pytest.mark.parametrize("authorization", ["bearer {}", "BEARER {}", "Bearer  {}"])
@unlike_stock("the scheme is compared letter by letter", shows="401 == 200")
def test_the_scheme_may_be_written_in_any_case_and_with_more_spaces(api: Api, authorization: str) -> None:
    """RFC 9110 section 11.1, and RFC 6750 section 2.1."""
    headers = {"Authorization": authorization.format(api.forge())}
    assert api("GET", "/tests/secret", headers=headers).status_code == 200


@unlike_stock("a key that is the name of a file is replaced by what the file says", shows="'no secret' in")
def test_a_key_is_never_taken_for_the_name_of_a_file(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "a-key-of-32-characters-or-longer.txt"
    (tmp_path / key).write_text("no secret")
    monkeypatch.chdir(tmp_path)
    used = api.create(key).ctx.auth.config.secret()
    assert used in (key, key.encode())


@unlike_stock("a scoped view verifies the token twice, and the next time again", shows="[2, 2] == [1, 0]")
def test_a_token_is_verified_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
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


@unlike_stock("PyJWT is called in a way that it deprecates", shows="is deprecated")
def test_nothing_deprecated_is_used_to_issue_and_check_a_token(api: Api) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api.secret(api.log_in()["access_token"])
    said = [str(warning.message) for warning in caught if issubclass(warning.category, DeprecationWarning)]
    assert said == []
