"""Tests of examples/browser: a page in cookie mode, on the API's origin and on others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.sites import one_worker, static_site
from tests.conftest import PASSWORD
from tests.processes import TIMEOUT_SECONDS
from tests.serving import CHECKOUT, new_name
from tools.local_mongo import free_port

EXAMPLE = CHECKOUT / "examples" / "browser"
ACCESS, REFRESH = "__Host-access", "__Host-refresh"
# No inline script or style, no markup from scripts (Trusted Types), and requests to the API only.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self' http://localhost:{0} http://api.demo.localhost:{0}; "
    "form-action 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
# The host of the page, and the API's address: with the ports of the site and of the service.
VARIANTS = {
    "the same origin behind a proxy": ("http://127.0.0.1:{site}", "/api"),
    "another port": ("http://localhost:{site}", "http://localhost:{service}"),
    "another subdomain": ("http://app.demo.localhost:{site}", "http://api.demo.localhost:{service}"),
}
REFUSED = {
    "an origin that is not allowed": ("http://blog.demo.localhost:{site}", "http://api.demo.localhost:{service}"),
    "another site": ("http://shop.localhost:{site}", "http://api.demo.localhost:{service}"),
    "another name of this machine": ("http://127.0.0.1:{site}", "http://localhost:{service}"),
}
ALLOWED = [f"http://{name}:{{site}}" for name in ("localhost", "127.0.0.1", "app.demo.localhost", "shop.localhost")]


@pytest.fixture(scope="module")
def pages(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run the service and the site of the pages; yield the address of each variant's page."""
    folder, service = tmp_path_factory.mktemp("site"), free_port()
    with static_site(folder, policy=POLICY.format(service), service=service) as site:
        ports = {"service": service, "site": site}
        settings = {
            "APP_PUBLIC_URL": f"http://127.0.0.1:{site}/api",
            "APP_CORS_ORIGINS": ",".join(origin.format(**ports) for origin in ALLOWED),
        }
        pages = {}
        for name, (origin, api) in (VARIANTS | REFUSED).items():
            configure(folder / (path := name.replace(" ", "-")), api.format(**ports))
            pages[name] = f"{origin.format(**ports)}/{path}/"
        with one_worker(f"{mongo_uri}_example", port=service, variables=settings):
            yield pages


def configure(folder: Path, api: str) -> None:
    """Copy the example and set the API's address, as its users do."""
    folder.mkdir()
    for path in EXAMPLE.iterdir():
        text = path.read_text()
        (folder / path.name).write_text(text.replace('name="api" content=""', f'name="api" content="{api}"'))


class Visitor:
    """A user with a browser, who has opened the page in one tab."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.name = new_name()
        self.seen: set[str] = set()  # all tokens that the browser has kept
        self.page = self.tab()

    def tab(self) -> Page:
        """Open the page in another tab."""
        page = self.context.new_page()
        page.goto(self.url)
        return page

    def submit(self, button: str, path: str) -> str:
        """Submit the form, and return the body of the API's response."""
        self.page.get_by_label("Name").fill(self.name)
        self.page.get_by_label("Password").fill(PASSWORD)
        with self.page.expect_response(lambda one: one.url.endswith(path) and one.request.method == "POST") as response:
            self.page.get_by_role("button", name=button).click()
        return response.value.text()

    def refreshed(self) -> str:
        """Reload the page, and return the body of the response to its refresh."""
        with self.page.expect_response("**/auth/refresh") as response:
            self.page.reload()
        return response.value.text()

    @property
    def tokens(self) -> dict[str, str]:
        """The tokens that the browser keeps."""
        tokens = {one["name"]: one["value"] for one in self.context.cookies() if one["name"] in (ACCESS, REFRESH)}
        self.seen |= set(tokens.values())
        return tokens

    def is_logged_in(self, page: Page | None = None) -> None:
        """Wait until the page shows the name."""
        (page or self.page).get_by_text(f"You are {self.name}.").wait_for()
        assert set(self.tokens) == {ACCESS, REFRESH}

    def is_logged_out(self, page: Page | None = None) -> None:
        """Wait until the page shows the form."""
        (page or self.page).get_by_role("button", name="Log in").wait_for()
        assert self.tokens == {}


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Open a browser without cookies."""
    context = browser.new_context(locale="en-GB")
    context.set_default_timeout(1000 * TIMEOUT_SECONDS)
    yield context
    context.close()


@pytest.fixture(params=VARIANTS)
def visitor(context: BrowserContext, pages: dict[str, str], request: pytest.FixtureRequest) -> Visitor:
    """Open the page and register."""
    visitor = Visitor(context, pages[request.param])
    visitor.is_logged_out()
    visitor.submit("Register", "/users/registration")
    visitor.is_logged_in()
    return visitor


def test_the_page_keeps_a_session_without_a_token_in_reach_of_scripts(visitor: Visitor) -> None:
    page = visitor.page
    page.reload()
    visitor.is_logged_in()
    page.get_by_role("button", name="Log out").click()
    visitor.is_logged_out()
    page.reload()
    visitor.is_logged_out()
    bodies = [visitor.submit("Log in", "/auth")]
    visitor.is_logged_in()
    visitor.context.clear_cookies(name=ACCESS)
    bodies.append(visitor.refreshed())
    visitor.is_logged_in()
    assert len(visitor.seen) == 6, "of the registration, the login and the refresh"
    assert not [token for token in visitor.seen for body in bodies if token in body or token in page.content()]
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


def test_an_access_token_that_has_become_invalid_is_refreshed(visitor: Visitor) -> None:
    """As after a rotation of keys."""
    [cookie] = [one for one in visitor.context.storage_state()["cookies"] if one["name"] == ACCESS]
    cookie["value"] = cookie["value"][:-8] + "AAAAAAAA"
    visitor.context.add_cookies([cookie])  # type: ignore[list-item]
    visitor.refreshed()
    visitor.is_logged_in()


CALLS = """() => {
    window.users = import("./session.js").then(({ whoAmI }) => Promise.all(Array.from({ length: 5 }, whoAmI)));
}"""


def test_two_tabs_that_refresh_at_once_both_stay_logged_in(visitor: Visitor) -> None:
    tabs = [visitor.page, visitor.tab()]
    visitor.is_logged_in(tabs[1])
    visitor.context.clear_cookies(name=ACCESS)
    for tab in tabs:  # both send their requests before the first response arrives
        tab.evaluate(CALLS)
    for tab in tabs:
        assert [user["username"] for user in tab.evaluate("() => window.users")] == [visitor.name] * 5
        tab.reload()
        visitor.is_logged_in(tab)


def test_a_logout_applies_to_all_tabs_and_to_the_back_button(visitor: Visitor) -> None:
    other = visitor.tab()
    visitor.is_logged_in(other)
    visitor.page.goto("about:blank")
    other.get_by_role("button", name="Log out").click()
    visitor.is_logged_out(other)
    visitor.page.go_back()
    visitor.is_logged_out()


def test_a_logout_works_when_the_access_token_has_expired(visitor: Visitor) -> None:
    visitor.context.clear_cookies(name=ACCESS)
    visitor.page.get_by_role("button", name="Log out").click()
    visitor.is_logged_out()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_refusal_is_shown_as_text(context: BrowserContext, pages: dict[str, str], variant: str) -> None:
    visitor = Visitor(context, pages[variant])
    visitor.submit("Log in", "/auth")
    visitor.page.get_by_text("The username or the password is wrong.").wait_for()
    visitor.is_logged_out()


def test_an_origin_that_is_not_allowed_cannot_call_the_api(context: BrowserContext, pages: dict[str, str]) -> None:
    visitor = Visitor(context, pages["an origin that is not allowed"])
    visitor.page.get_by_text("Failed to fetch").wait_for()


@pytest.mark.parametrize("variant", ["another site", "another name of this machine"])
def test_on_another_site_no_cookies_are_kept(context: BrowserContext, pages: dict[str, str], variant: str) -> None:
    """Not even if CORS allows its origin, because of SameSite=Strict. The page says so."""
    visitor = Visitor(context, pages[variant])
    visitor.submit("Register", "/users/registration")
    visitor.page.get_by_text("The browser rejected the cookies").wait_for()
    visitor.is_logged_out()
