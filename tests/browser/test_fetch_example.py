"""Tests of examples/fetch.js in a browser: concurrent requests in two tabs, refreshes, and failures."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
from playwright.sync_api import Page, Route
from pymongo import MongoClient
from pymongo.database import Database

from tests.conftest import PASSWORD, Document
from tests.serving import CHECKOUT, new_name

PACKAGES = CHECKOUT / "verifiers" / "node" / "node_modules"
CLIENT = PACKAGES / "openapi-fetch" / "dist" / "index.mjs"
SOURCE = (CHECKOUT / "examples" / "fetch.js").read_text()
TOKEN_SECONDS = 2
START = f"{SOURCE}\nObject.assign(window, {{ session: new Session(), SessionEnded, withStepUp }});"
REQUEST = "session.fetch('/tests/secret').then((response) => response.status, (error) => error instanceof SessionEnded)"
REQUESTS = f"() => {{ window.responses = Promise.all(Array.from({{length: 20}}, () => {REQUEST})); }}"
OPEN = "async ([username, password]) => (await session.open('/users/registration', {username, password})).status"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Give access tokens a short lifetime."""
    return {"APP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS), "APP_ENCRYPTION_KEY": secrets.token_urlsafe(48)}


def start(tab: Page, served: str) -> None:
    """Run the example on a page of the service."""
    tab.goto(f"{served}/tests/hello")
    tab.add_script_tag(content=START, type="module")
    tab.wait_for_function("window.session !== undefined")


@pytest.fixture
def alice(served: str, page: Page) -> Page:
    """Return a page on which a new user has just registered."""
    start(page, served)
    assert page.evaluate(OPEN, [new_name(), PASSWORD]) == 201
    return page


def test_two_tabs_refresh_once_and_a_logout_applies_to_both(served: str, page: Page) -> None:
    tabs = [page, page.context.new_page()]
    refreshes: list[str] = []
    for tab in tabs:
        tab.on("request", lambda request: refreshes.append(request.url) if "/auth/refresh" in request.url else None)
        start(tab, served)
    assert page.evaluate(OPEN, [new_name(), PASSWORD]) == 201
    page.wait_for_timeout(1000 * TOKEN_SECONDS)
    for tab in tabs:  # both tabs send their requests before the first response arrives
        tab.evaluate(REQUESTS)
    for tab in tabs:
        assert tab.evaluate("() => window.responses") == [200] * 20
    assert len(refreshes) == 1
    assert page.evaluate("() => session.close().then((response) => response.status)") == 204
    assert [tab.evaluate(f"() => {REQUEST}") for tab in tabs] == [True, True], "the session has ended"


def test_a_refresh_without_a_response_is_retried(alice: Page) -> None:
    statuses: list[int] = []

    def lose_first_response(route: Route) -> None:
        response = route.fetch()
        statuses.append(response.status)
        if len(statuses) == 1:
            route.abort()
        else:
            route.fulfill(response=response)

    alice.route("**/auth/refresh", lose_first_response)
    alice.wait_for_timeout(1000 * TOKEN_SECONDS)
    assert alice.evaluate(f"() => {REQUEST}") == 200
    assert statuses == [200, 200]


INVALIDATE = """(names) => {
    const tokens = session.tokens;
    for (const name of names) tokens[name] = tokens[name].slice(0, -8) + "AAAAAAAA";
    localStorage.setItem("session", JSON.stringify(tokens));
}"""


def test_an_invalid_access_token_is_refreshed_if_possible(alice: Page) -> None:
    """As after a change of the settings, or of the key, of the service."""
    alice.evaluate(INVALIDATE, ["access_token"])
    assert alice.evaluate(f"() => {REQUEST}") == 200
    alice.evaluate(INVALIDATE, ["access_token", "refresh_token"])
    assert alice.evaluate(f"() => {REQUEST}") is True, "the session has ended"
    assert alice.evaluate("session.tokens") is None


def test_the_end_of_an_old_session_does_not_end_the_new_session(alice: Page) -> None:
    """The user logs in again before the last response of the old session arrives."""
    assert alice.evaluate(
        """async ([username, password]) => {
            const old = localStorage.getItem("session");
            await session.close();
            await session.open("/users/registration", { username, password });
            const latest = localStorage.getItem("session");
            localStorage.setItem("session", old);
            const pending = session.fetch("/tests/secret").catch((error) => error instanceof SessionEnded);
            localStorage.setItem("session", latest);
            return [await pending, localStorage.getItem("session") === latest];
        }""",
        [new_name(), PASSWORD],
    ) == [True, True]


STEP_UP = """() => {
    window.asked = [];
    window.request = withStepUp(session, async (factors) => {
        asked.push(factors);
        return factors.length ? { code: await code() } : { current_password: await password() };
    });
}"""
CALL = """([path, method, body]) =>
    request(path, { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } })
        .then(async (response) => [response.status, await response.json().catch(() => null)])"""
OPENAPI_FETCH = """async ([source, path]) => {
    const module = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const { default: createClient } = await import(module);
    const api = createClient({ baseUrl: location.origin, fetch: request });
    const { response, data } = await api.POST(path);
    return [response.status, data.recovery_codes.length];
}"""


@pytest.fixture
def stored(mongo_uri: str) -> Iterator[Database[Document]]:
    """Connect to the service's database."""
    with MongoClient[Document](f"{mongo_uri}_browser") as client:
        yield client.get_default_database()


def test_second_factor_and_step_up_also_under_openapi_fetch(
    served: str, page: Page, stored: Database[Document]
) -> None:
    secret, name = [""], new_name()

    def make_stale() -> None:
        """Let the last authentication and the last code be long ago."""
        earlier = datetime.now(UTC) - timedelta(hours=1)
        stored.sessions.update_many({}, {"$set": {"authenticated_at": earlier}})
        stored.factors.update_many({"totp": {"$exists": True}}, {"$inc": {"totp.step": -10}})
        page.wait_for_timeout(1000 * TOKEN_SECONDS)

    def code() -> str:
        return pyotp.TOTP(secret[0]).now()

    page.expose_function("code", code)
    page.expose_function("password", lambda: PASSWORD)
    start(page, served)
    assert page.evaluate(OPEN, [name, PASSWORD]) == 201
    make_stale()
    page.evaluate(STEP_UP)
    status, begun = page.evaluate(CALL, ["/users/me/totp", "POST", {}])
    assert (status, page.evaluate("asked")) == (200, [[]])
    secret[0] = begun["secret"]
    assert page.evaluate(CALL, ["/users/me/totp/confirmation", "POST", {"code": code()}])[0] == 200
    make_stale()
    with_factor = "async ([username, password]) => (await session.open('/auth', {username, password}, code)).status"
    assert page.evaluate(with_factor, [name, PASSWORD]) == 200
    make_stale()
    page.evaluate("asked.length = 0")
    assert page.evaluate(OPENAPI_FETCH, [CLIENT.read_text(), "/users/me/recovery-codes"]) == [200, 10]
    assert page.evaluate("asked") == [[], ["totp", "recovery_code"]]


USE = """
import createClient from "openapi-fetch";
import { Session, withStepUp } from "./fetch.js";
const session = new Session("https://api.example.com");
const request = withStepUp(session, async ([factor]) => (factor ? { code: "123456" } : { current_password: "-" }));
createClient<object>({ baseUrl: session.api, fetch: request });
void session.open("/auth", { username: "alice" }, async (factors) => factors[0]);
"""


def test_the_types_fit_the_example_and_openapi_fetch(tmp_path: Path) -> None:
    for name in ("fetch.js", "fetch.d.ts"):
        shutil.copy(CHECKOUT / "examples" / name, tmp_path)
    (tmp_path / "use.ts").write_text(USE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    options = ["--noEmit", "--strict", "--module", "nodenext", "--lib", "es2022,dom"]
    checked = subprocess.run(
        [PACKAGES / ".bin" / "tsc", *options, "use.ts"], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
