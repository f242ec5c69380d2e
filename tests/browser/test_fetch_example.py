"""The example for browsers, in one: many requests in two tabs, and one refresh."""

import pytest
from playwright.sync_api import Page

from tests.conftest import PASSWORD
from tests.test_workers import CHECKOUT, new_name

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


def test_two_tabs_refresh_once_and_a_logout_is_one_in_both(served: str, page: Page) -> None:
    tabs = [page, page.context.new_page()]
    refreshes: list[str] = []
    for tab in tabs:
        tab.on("request", lambda request: refreshes.append(request.url) if "/auth/refresh" in request.url else None)
        tab.goto(f"{served}/tests/hello")
        tab.add_script_tag(content=START, type="module")
        tab.wait_for_function("window.session !== undefined")
    assert page.evaluate(OPEN, [new_name(), PASSWORD]) == 201
    page.wait_for_timeout(1000 * TOKEN_SECONDS)
    for tab in tabs:  # at once, as far as one can begin in both before either has an answer
        tab.evaluate(ASK_OFTEN)
    for tab in tabs:
        assert tab.evaluate("() => window.answers") == [200] * 20
    assert len(refreshes) == 1
    page.evaluate("() => session.close()")
    assert [tab.evaluate(f"() => {ASK_ONCE}") for tab in tabs] == [True, True], "the session has ended"
