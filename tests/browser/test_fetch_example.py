"""Tests of examples/fetch.js in a browser: concurrent requests in two tabs, refreshes, and failures."""

import pytest
from playwright.sync_api import Page, Route

from tests.conftest import PASSWORD
from tests.serving import CHECKOUT, new_name

SOURCE = (CHECKOUT / "examples" / "fetch.js").read_text()
TOKEN_SECONDS = 2
START = f"{SOURCE}\nwindow.session = new Session(); window.SessionEnded = SessionEnded;"
REQUEST = "session.fetch('/tests/secret').then((response) => response.status, (error) => error instanceof SessionEnded)"
REQUESTS = f"() => {{ window.responses = Promise.all(Array.from({{length: 20}}, () => {REQUEST})); }}"
OPEN = "async ([username, password]) => (await session.open('/users/registration', {username, password})).status"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Give access tokens a short lifetime."""
    return {"APP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS)}


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
