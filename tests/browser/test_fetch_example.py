"""The example for browsers, in one: many requests in two tabs and one refresh, and whatever goes wrong with that."""

import pytest
from playwright.sync_api import Page, Route

from tests.conftest import PASSWORD
from tests.serving import CHECKOUT, new_name

SOURCE = (CHECKOUT / "examples" / "fetch.js").read_text()
TOKEN_SECONDS = 2
START = f"{SOURCE}\nwindow.session = new Session(); window.SessionEnded = SessionEnded;"
ASK_ONCE = "session.fetch('/tests/secret').then((answer) => answer.status, (error) => error instanceof SessionEnded)"
ASK_OFTEN = f"() => {{ window.answers = Promise.all(Array.from({{length: 20}}, () => {ASK_ONCE})); }}"
OPEN = "async ([username, password]) => (await session.open('/users/registration', {username, password})).status"


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Have access tokens expire soon."""
    return {"APP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS)}


def start(tab: Page, served: str) -> None:
    """Have the example run on a page of the service."""
    tab.goto(f"{served}/tests/hello")
    tab.add_script_tag(content=START, type="module")
    tab.wait_for_function("window.session !== undefined")


@pytest.fixture
def alice(served: str, page: Page) -> Page:
    """Give a page on which somebody has just registered."""
    start(page, served)
    assert page.evaluate(OPEN, [new_name(), PASSWORD]) == 201
    return page


def test_two_tabs_refresh_once_and_a_logout_is_one_in_both(served: str, page: Page) -> None:
    tabs = [page, page.context.new_page()]
    refreshes: list[str] = []
    for tab in tabs:
        tab.on("request", lambda request: refreshes.append(request.url) if "/auth/refresh" in request.url else None)
        start(tab, served)
    assert page.evaluate(OPEN, [new_name(), PASSWORD]) == 201
    page.wait_for_timeout(1000 * TOKEN_SECONDS)
    for tab in tabs:  # at once, as far as one can begin in both before either has an answer
        tab.evaluate(ASK_OFTEN)
    for tab in tabs:
        assert tab.evaluate("() => window.answers") == [200] * 20
    assert len(refreshes) == 1
    assert page.evaluate("() => session.close().then((answer) => answer.status)") == 204
    assert [tab.evaluate(f"() => {ASK_ONCE}") for tab in tabs] == [True, True], "the session has ended"


def test_a_lost_answer_is_asked_for_again(alice: Page) -> None:
    tried: list[int] = []

    def lose_the_first(route: Route) -> None:
        answer = route.fetch()
        tried.append(answer.status)
        if len(tried) == 1:
            route.abort()
        else:
            route.fulfill(response=answer)

    alice.route("**/auth/refresh", lose_the_first)
    alice.wait_for_timeout(1000 * TOKEN_SECONDS)
    assert alice.evaluate(f"() => {ASK_ONCE}") == 200
    assert tried == [200, 200]


SPOIL = """(names) => {
    const tokens = session.tokens;
    for (const name of names) tokens[name] = tokens[name].slice(0, -8) + "AAAAAAAA";
    localStorage.setItem("session", JSON.stringify(tokens));
}"""


def test_a_token_that_is_not_valid_any_more_is_refreshed_if_it_can_be(alice: Page) -> None:
    """As after a change of the service's settings, and of its key."""
    alice.evaluate(SPOIL, ["access_token"])
    assert alice.evaluate(f"() => {ASK_ONCE}") == 200
    alice.evaluate(SPOIL, ["access_token", "refresh_token"])
    assert alice.evaluate(f"() => {ASK_ONCE}") is True, "the session has ended"
    assert alice.evaluate("session.tokens") is None


def test_the_end_of_a_session_is_not_that_of_the_next(alice: Page) -> None:
    """Somebody logs in anew while the last answer of the old session is on its way."""
    assert alice.evaluate(
        """async ([username, password]) => {
            const old = localStorage.getItem("session");
            await session.close();
            await session.open("/users/registration", { username, password });
            const latest = localStorage.getItem("session");
            localStorage.setItem("session", old);
            const asked = session.fetch("/tests/secret").catch((error) => error instanceof SessionEnded);
            localStorage.setItem("session", latest);
            return [await asked, localStorage.getItem("session") === latest];
        }""",
        [new_name(), PASSWORD],
    ) == [True, True]
