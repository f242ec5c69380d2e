"""A person's story in Chromium: register, confirm the address, passkey, second device, forgotten password, delete.

ACCOUNT_PICTURES=folder writes a picture of each step, RENEW_SCREENSHOT=1 the one of the README.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, Route, expect

from tests.browser.sites import one_worker
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox, code, token
from tests.processes import TIMEOUT_SECONDS
from tests.serving import CHECKOUT, new_name
from tools.local_mongo import free_port

NEW_PASSWORD = "a quite different sentence"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
CLIENT_ERROR = "Failed to load resource: the server responded with a status of 4"  # Chromium logs this for each 4xx
SCREENSHOT = CHECKOUT / "docs" / "account-page.png"
PICTURES = os.environ.get("ACCOUNT_PICTURES")  # a folder for a picture of each step
PHONE = "Mozilla/5.0 (Android 16; Mobile; rv:148.0) Gecko/148.0 Firefox/148.0"
MARKUP = "<img src=x onerror=alert(1)>"
INJECTION = "() => { try { document.body.innerHTML = '<b>b</b>'; } catch (error) { return error.name; } }"
SERIOUS = ("serious", "critical")  # violations of axe-core
PAGE_BYTES = 50 * 1024  # the maximum for a page with all its files
PAGES = ("", "login", "register", "forgotten", "reset", "undo")
# The sum of all layout shifts since the page was opened (Layout Instability API).
LAYOUT_SHIFT = """() => new Promise((resolve) => {
  let sum = 0;
  const add = (list) => list.getEntries().forEach((entry) => (sum += entry.value));
  new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => setTimeout(() => resolve(sum)));
})"""
OPTIONS = "**/options"  # what a page asks for before it asks an authenticator
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": False,  # nobody touches it until a test says so
}


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server."""
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def account(mongo_uri: str, mailbox: Mailbox) -> Iterator[str]:
    """Run the service, and yield the address of its pages."""
    with accounts(f"{mongo_uri}_story", mailbox) as url:
        yield url


@contextmanager
def accounts(uri: str, mailbox: Mailbox, **others: str) -> Iterator[str]:
    """Run the service at the address that it knows as its own, and yield that of its pages."""
    port = free_port()
    url = f"http://localhost:{port}"
    variables = {
        "APP_ENV": "development",
        "APP_SMTP_URL": mailbox.url,
        "APP_MAIL_FROM": "no-reply@demo.example",
        "APP_PUBLIC_URL": url,
        "APP_ENCRYPTION_KEY": secrets.token_urlsafe(48),
        **others,
    }
    with one_worker(uri, port=port, variables=variables):
        yield f"{url}/account/"


class Person:
    """A person with a browser, an authenticator and a mailbox."""

    def __init__(
        self, new_page: Callable[..., Page], account: str, mailbox: Mailbox, film: Callable[[Page, str], None]
    ) -> None:
        self.new_page = new_page
        self.page = page = new_page()
        self.account = account
        self.mailbox = mailbox
        self.film = film
        self.name = new_name()
        self.address = f"{self.name}@example.com"
        self.messages: list[str] = []
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("WebAuthn.enable")
        added = self.devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
        self.authenticator: str = added["authenticatorId"]
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.messages.append(str(error)))

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(CLIENT_ERROR):
            self.messages.append(message.text)

    def mail(self, subject: str) -> EmailMessage:
        """Wait for a mail."""
        ends = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < ends:
            if found := [mail for mail in self.mailbox.to(self.address) if subject in mail["Subject"]]:
                return found[-1]
            self.page.wait_for_timeout(20)
        pytest.fail(f"no mail {subject}")

    @contextmanager
    def touching(self) -> Iterator[None]:
        """Touch the authenticator when the page asks for options, for the context.

        An authenticator that nobody touches drops the request, and the page's offer in the field of the name must not
        be answered: so it is touched from then on and not before.
        """
        self.page.wait_for_load_state("networkidle")
        self.page.route(OPTIONS, self._touch)
        yield
        self.page.unroute(OPTIONS)
        self._set_touched(False)

    def _touch(self, route: Route) -> None:
        self._set_touched(True)
        route.continue_()

    def _set_touched(self, enabled: bool) -> None:
        state = {"authenticatorId": self.authenticator, "enabled": enabled}
        self.devtools.send("WebAuthn.setAutomaticPresenceSimulation", state)

    def open(self, path: str) -> None:
        """Open a page."""
        self.page.goto(self.account + path)

    def register(self) -> None:
        """Register with an address."""
        self.open("register")
        self.page.get_by_label("Name").fill(self.name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_label("E-mail address").fill(self.address)
        self.film(self.page, "register")
        self.page.get_by_role("button", name="Register").click()
        self.page.get_by_text(f"You are {self.name}.").wait_for()

    def log_in(self, password: str = PASSWORD) -> None:
        """Give name and password."""
        self.open("login")
        self.page.get_by_label("Name or e-mail").fill(self.name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in", exact=True).click()


def violations(page: Page) -> list[str]:
    """Return what keeps people who use a screen reader, a keyboard or large contrasts from using a page."""
    found = Axe().run(page).response["violations"]
    return [f"{one['help']}: {one['nodes'][0]}" for one in found if one["impact"] in SERIOUS]


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def person(browser: Browser, account: str, mailbox: Mailbox, request: pytest.FixtureRequest) -> Iterator[Person]:
    """Open a browser with a virtual authenticator, at one size and color scheme."""
    size, scheme = request.param
    screen = {"viewport": SIZES[size], "color_scheme": scheme, "locale": "en-GB"}
    steps: list[str] = []

    def film(page: Page, step: str) -> None:
        steps.append(step)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), step
        assert not violations(page), step
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{size}-{scheme}-{len(steps):02}-{step}.png", full_page=True)
        if (size, scheme, step) == ("desktop", "light", "second-device") and os.environ.get("RENEW_SCREENSHOT"):
            page.screenshot(path=SCREENSHOT)

    def new_page(**options: Any) -> Page:
        context = browser.new_context(**screen | options)
        context.set_default_timeout(1000 * TIMEOUT_SECONDS)
        return context.new_page()

    person = Person(new_page, account, mailbox, film)
    yield person
    assert not person.messages
    person.page.context.close()


def test_the_story_of_an_account(person: Person) -> None:
    page = person.page
    person.register()
    page.get_by_label("Code of the mail").fill(code(person.mail("is your code")))
    page.get_by_role("button", name="Confirm the address").click()
    page.get_by_text("is confirmed.").wait_for()
    person.film(page, "confirmed")
    page.get_by_label("Name of the device").fill("My laptop")
    with person.touching():
        page.get_by_role("button", name="Add a passkey").click()
        page.get_by_text("Keep these recovery codes").wait_for()
    expect(page.locator("#codes li")).to_have_count(10)
    recovery_code = page.locator("#codes li").first.inner_text()
    person.film(page, "passkey")
    page.get_by_role("button", name="Log out", exact=True).click()
    page.wait_for_url("**/login")
    person.film(page, "logged-out")
    with person.touching():
        page.get_by_role("button", name="Log in with a passkey").click()
        page.get_by_text(f"You are {person.name}.").wait_for()
    person.film(page, "by-passkey")
    second = Person(partial(person.new_page, user_agent=PHONE), person.account, person.mailbox, person.film)
    second.name = person.name
    second.log_in()
    second.page.get_by_role("heading", name="Second factor").wait_for()
    person.film(second.page, "second-factor")
    second.page.get_by_label("Code of your authenticator app").fill(recovery_code)
    second.page.get_by_role("button", name="Continue").click()
    second.page.get_by_text(f"You are {person.name}.").wait_for()
    page.reload()
    device = page.locator("#sessions li", has_text="Firefox on Android")
    person.film(page, "second-device")
    device.get_by_role("button", name="End").click()
    expect(device).to_have_count(0)
    second.page.reload()
    second.page.wait_for_url("**/login")
    second.page.context.close()
    person.open("forgotten")
    page.get_by_label("The e-mail address").fill(person.address)
    page.get_by_role("button", name="Send me a link").click()
    page.get_by_text("a mail is on its way").wait_for()
    person.film(page, "forgotten")
    person.open(f"reset#token={token(person.mail('new password'))}")
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Set the password").click()
    page.get_by_label("Code").wait_for()
    person.film(page, "reset")
    with person.touching():
        page.get_by_role("button", name="Use a passkey").click()
        page.get_by_text("The password is set").wait_for()
    person.log_in(NEW_PASSWORD)
    with person.touching():
        page.get_by_role("button", name="Use a passkey").click()
        page.get_by_text(f"You are {person.name}.").wait_for()
    page.locator("#deletion").get_by_label("Current password").fill(NEW_PASSWORD)
    person.film(page, "delete")
    page.get_by_role("button", name="Delete my account").click()
    page.wait_for_url("**/register")
    person.log_in(NEW_PASSWORD)
    page.get_by_text("The username or the password is wrong.").wait_for()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_small_and_nothing_in_it_moves(person: Person, path: str) -> None:
    person.register()
    person.devtools.send("Network.clearBrowserCache")
    responses: list[Response] = []
    person.page.on("response", lambda response: responses.append(response))
    person.open(path)
    person.page.wait_for_load_state("networkidle")
    size = sum(response.request.sizes()["responseBodySize"] for response in responses)
    assert 0 < size < PAGE_BYTES
    assert person.page.evaluate(LAYOUT_SHIFT) == 0


def test_a_page_of_a_session_that_has_ended_shows_nothing(person: Person) -> None:
    """Back button after a logout."""
    person.register()
    person.open("register")
    person.open("")
    person.page.get_by_role("button", name="Log out", exact=True).click()
    person.page.wait_for_url("**/login")
    person.page.go_back()
    person.page.go_forward()
    person.page.wait_for_url("**/login")
    assert not person.page.get_by_text("Where you are logged in").is_visible()


def test_a_page_that_comes_back_after_a_logout_elsewhere_shows_nothing_of_the_account(person: Person) -> None:
    """Back/forward cache: what was on the page is taken off when it is left."""
    person.register()
    page = person.page
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    expect(page.locator("main")).to_be_hidden()
    expect(page.locator("#who")).to_be_empty()
    page.context.clear_cookies()
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    page.wait_for_url("**/login")


def test_markup_in_user_agents_and_names_is_shown_as_text(person: Person) -> None:
    """Stored cross-site scripting (XSS)."""
    attacker = Person(partial(person.new_page, user_agent=MARKUP), person.account, person.mailbox, person.film)
    attacker.register()
    page = attacker.page
    page.get_by_label("Name of the device").fill(MARKUP)
    with attacker.touching():
        page.get_by_role("button", name="Add a passkey").click()
        page.get_by_text("Keep these recovery codes").wait_for()
    for place in ("#sessions", "#passkeys"):
        expect(page.locator(f"{place} strong")).to_have_text(MARKUP)
        expect(page.locator(f"{place} img")).to_have_count(0)
    assert not attacker.messages
    page.context.close()


@pytest.mark.parametrize("path", PAGES)
def test_scripts_cannot_inject_markup(page: Page, account: str, path: str) -> None:
    """Trusted Types."""
    page.goto(f"{account}{path}")
    assert page.evaluate(INJECTION) == "TypeError"


def test_an_authenticator_app_is_set_up_on_the_page(person: Person) -> None:
    person.register()
    page = person.page
    page.get_by_role("button", name="Set it up").click()
    page.get_by_alt_text("QR code").wait_for()
    person.film(page, "authenticator")
    secret = page.locator("#totp-secret").inner_text()
    page.get_by_label("Code that the app shows").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Confirm", exact=True).click()
    page.get_by_text("An app shows the codes").wait_for()
    expect(page.locator("#codes li")).to_have_count(10)
    page.get_by_text("10 recovery codes are left").wait_for()
    page.get_by_role("button", name="Make new recovery codes").click()
    page.get_by_role("heading", name="Is it you?").wait_for()
    person.film(page, "step-up")
    page.locator("#step-up").get_by_label("Code of your").fill(page.locator("#codes li").first.inner_text())
    page.locator("#step-up").get_by_role("button", name="Continue").click()
    expect(page.locator("#codes li")).to_have_count(10)
    page.get_by_text("10 recovery codes are left").wait_for()


def test_who_must_have_a_second_factor_can_only_enrol_one_until_then(
    person: Person, mongo_uri: str, mailbox: Mailbox
) -> None:
    with accounts(f"{mongo_uri}_factor", mailbox, APP_REQUIRE_SECOND_FACTOR="user") as url:
        person.account = url
        person.register()
        page = person.page
        page.get_by_text("Your account needs a second factor").wait_for()
        expect(page.locator("#sessions-title")).to_be_hidden()
        page.get_by_label("Name of the device").fill("My laptop")
        with person.touching():
            page.get_by_role("button", name="Add a passkey").click()
            page.get_by_text("Keep these recovery codes").wait_for()
        page.get_by_role("heading", name="Where you are logged in").wait_for()
        expect(page.get_by_text("Your account needs a second factor")).to_be_hidden()
        page.goto("about:blank")
