"""The pages that links in mails lead to, in a browser."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pyotp
import pytest
from playwright.sync_api import Page, Request

from tests.conftest import PASSWORD
from tests.mailbox import Mailbox, code, token
from tests.processes import TIMEOUT_SECONDS
from tests.serving import new_name

NEW_PASSWORD = "a quite different sentence"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server."""
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def settings(mailbox: Mailbox) -> dict[str, str]:
    """Send mails to the mailbox, which has no TLS, so not in production."""
    return {
        "APP_ENV": "development",
        "APP_SMTP_URL": mailbox.url,
        "APP_MAIL_FROM": "no-reply@demo.example",
        "APP_PUBLIC_URL": "http://localhost:8000",
        "APP_ENCRYPTION_KEY": secrets.token_urlsafe(48),
    }


class Person:
    """A user with a verified address."""

    def __init__(self, served: str, mailbox: Mailbox) -> None:
        self.served = served
        self.mailbox = mailbox
        self.name = new_name()
        self.address = f"{self.name}@example.com"
        body = {"username": self.name, "password": PASSWORD, "email": self.address}
        self.tokens = self.send("POST", "/users/registration", body).json()
        verified = self.send("POST", "/users/me/email/verification", {"code": code(self.mail("is your code"))})
        assert verified.status_code == 200, verified.text

    def send(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        """Send a request, with the access token if there is one."""
        headers = {"Authorization": f"Bearer {self.tokens['access_token']}"} if hasattr(self, "tokens") else {}
        return httpx.request(method, self.served + path, json=body, headers=headers, trust_env=False, timeout=60)

    def mail(self, subject: str) -> Any:
        """Wait for a mail with a text in its subject."""
        ends = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < ends:
            if found := [mail for mail in self.mailbox.to(self.address) if subject in mail["Subject"]]:
                return found[-1]
            time.sleep(0.02)
        pytest.fail(f"no mail {subject}")

    def login(self, password: str) -> int:
        """Return the status of a login."""
        return self.send("POST", "/auth", {"username": self.name, "password": password}).status_code


@pytest.fixture
def person(served: str, mailbox: Mailbox) -> Person:
    """Register a person."""
    return Person(served, mailbox)


def open_page(page: Page, url: str) -> list[Request]:
    """Open a page, and return the list of its requests."""
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    page.goto(url)
    page.wait_for_load_state("networkidle")
    return requests


@pytest.mark.parametrize("size", SIZES)
def test_a_reset_asks_for_the_second_factor_of_who_has_one(page: Page, person: Person, size: str) -> None:
    page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    secret = person.send("POST", "/users/me/totp", {}).json()["secret"]
    confirmed = person.send("POST", "/users/me/totp/confirmation", {"code": pyotp.TOTP(secret).now()})
    assert person.send("POST", "/auth/reset", {"email": person.address}).status_code == 202
    open_page(page, f"{person.served}/account/reset#token={token(person.mail('new password'))}")
    assert not page.get_by_label("Code").is_visible()
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_role("button").click()
    page.get_by_label("Code").wait_for()
    assert page.evaluate("document.activeElement.id") == "code"
    page.keyboard.type(confirmed.json()["recovery_codes"][0])
    page.keyboard.press("Enter")
    page.get_by_text("The password is set").wait_for()
    assert person.login(NEW_PASSWORD) == 401, "the factor is still asked for"


@pytest.mark.parametrize("size", SIZES)
def test_a_reset_is_completed_by_a_click_and_not_before(page: Page, person: Person, size: str) -> None:
    page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    assert person.send("POST", "/auth/reset", {"email": person.address}).status_code == 202
    sent = token(person.mail("new password"))
    requests = open_page(page, f"{person.served}/account/reset#token={sent}")
    assert {request.method for request in requests} == {"GET"}
    assert not [request for request in requests if sent in request.url or sent in str(request.all_headers())]
    assert sent not in page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("New password").fill("short")
    page.get_by_role("button").click()
    page.get_by_text("must have at least").wait_for()
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_text("The password is set").wait_for()
    assert (person.login(PASSWORD), person.login(NEW_PASSWORD)) == (401, 200)


def test_a_change_of_address_is_undone_by_a_click(page: Page, person: Person) -> None:
    assert person.send("PUT", "/users/me/email", {"email": f"other-{person.address}"}).status_code == 202
    open_page(page, f"{person.served}/account/undo#token={token(person.mail('about to change'))}")
    page.get_by_role("button").click()
    page.get_by_text("The change is undone").wait_for()
    assert person.login(PASSWORD) == 401
    page.goto("about:blank")
    open_page(page, f"{person.served}/account/undo#token={'x' * 43}")
    page.get_by_role("button").click()
    page.get_by_text("not valid any more").wait_for()


def test_without_a_token_the_page_says_what_is_missing(page: Page, served: str) -> None:
    open_page(page, f"{served}/account/reset")
    page.get_by_text("needs the link of a mail").wait_for()
    assert page.get_by_role("button").is_disabled()


def test_a_page_loads_nothing_from_elsewhere_and_sends_no_referrer(page: Page, served: str) -> None:
    requests = open_page(page, f"{served}/account/reset#token={'x' * 43}")
    assert all(request.url.startswith(served) for request in requests)
    response = httpx.get(f"{served}/account/reset", trust_env=False)
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
