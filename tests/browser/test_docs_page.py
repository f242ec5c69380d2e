"""Tests of the documentation page in a browser.

RENEW_SCREENSHOT=1 scripts/test browser writes a new screenshot for the README.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pyotp
import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, Request

from app.http.codes import Code
from tests.conftest import PASSWORD, Document
from tests.prefix_proxy import prefix_proxy
from tests.processes import TIMEOUT_SECONDS
from tests.serving import CHECKOUT, new_name

SCREENSHOT = CHECKOUT / "docs" / "docs-page.png"
SCREENSHOT_BYTES = 200_000
UNCHANGED_BYTES = 1000  # the maximum size of a 304 response
CLIENT_ERROR = "Failed to load resource: the server responded with a status of 4"  # Chromium logs this for each 4xx
NARROW = {"width": 360, "height": 740}
EXAMPLE_WIDTH = 280  # pixels, the minimum for the example of a response on a narrow screen
REGISTRATION_HEIGHT = 2600  # pixels, the maximum for the unfolded registration on a narrow screen
DARK = 80  # the maximum of red, green and blue of a dark background
INVALID_REQUEST = {400, 415, 422}


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Let users enrol second factors, with passkeys."""
    return {"APP_ENCRYPTION_KEY": secrets.token_urlsafe(48), "APP_PUBLIC_URL": "https://demo.example"}


def show(page: Page, url: str, path: str = "/docs") -> None:
    """Open the documentation page and wait until it shows the operations."""
    page.goto(f"{url}{path}")
    page.locator(".opblock").first.wait_for()


class Docs:
    """The page, the URLs that it requested, and the warnings and errors of the browser."""

    def __init__(self, page: Page, url: str, path: str = "/docs") -> None:
        self.page = page
        self.url = url
        self.requested: list[str] = []
        self.messages: list[str] = []
        page.on("request", self._on_request)
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        show(page, url, path)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requested.append(request.url)

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(CLIENT_ERROR):
            self.messages.append(message.text)

    def block(self, operation: str) -> Locator:
        """Return the section of an operation."""
        return self.page.locator(f"[id^=operations-][id$='-{operation}']")

    def unfold(self, operation: str) -> Locator:
        """Unfold an operation."""
        block = self.block(operation)
        block.locator(".opblock-summary-control").click()
        block.locator(".responses-table").first.wait_for()
        return block

    def fold(self, operation: str) -> None:
        """Fold an unfolded operation; with many unfolded operations the page becomes slow."""
        self.block(operation).locator(".opblock-summary-control").click()

    def open(self, operation: str) -> Locator:
        """Unfold an operation and open its "Try it out" form."""
        block = self.block(operation)
        if "is-open" not in (block.get_attribute("class") or ""):
            self.unfold(operation).get_by_role("button", name="Try it out").click()
        return block

    def execute(self, operation: str, **changes: str) -> tuple[int, str]:
        """Press Execute after changes to the example; return the status and the body that the page shows."""
        block = self.open(operation)
        if changes:
            body = block.locator("textarea.body-param__text")
            body.fill(json.dumps(json.loads(body.input_value()) | changes))
        with self.page.expect_response(lambda received: received.request.resource_type == "fetch") as response:
            block.get_by_role("button", name="Execute").click()
        row = block.locator(".live-responses-table tbody tr").first
        row.locator(".response-col_status", has_text=str(response.value.status)).wait_for()
        code = row.locator(".response-col_description .highlight-code code")
        return response.value.status, code.first.inner_text() if code.count() else ""

    def scrolls_horizontally(self) -> bool:
        """Return whether the page is wider than the screen."""
        wider: bool = self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return wider

    def register(self) -> None:
        """Register a new user, and send the access token with all further requests."""
        status, body = self.execute("postRegister", username=f"alice-{secrets.token_hex(6)}")
        assert status == 201, body
        self.authorize(json.loads(body)["access_token"])

    def register_elsewhere(self) -> str:
        """Register a new user without the page, so that its examples stay unchanged; enter and return the token."""
        body = {"username": new_name(), "password": PASSWORD}
        response = httpx.post(f"{self.url}/users/registration", json=body, trust_env=False, timeout=TIMEOUT_SECONDS)
        token: str = response.json()["access_token"]
        self.authorize(token)
        return token

    def authorize(self, token: str) -> None:
        """Enter an access token in the page."""
        self.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".modal-ux")
        dialog.wait_for()
        earlier = dialog.get_by_role("button", name="Remove authorization")
        if earlier.count():
            earlier.click()
        dialog.locator("#auth-bearer-value").fill(token)
        dialog.get_by_role("button", name="Apply credentials").click()
        dialog.get_by_role("button", name="Close").first.click()
        dialog.wait_for(state="detached")


def width_and_height(element: Locator) -> tuple[float, float]:
    """Return the size of a visible element in pixels."""
    box = element.bounding_box()
    assert box, "the element is not visible"
    return box["width"], box["height"]


@pytest.fixture
def docs(served: str, page: Page) -> Iterator[Docs]:
    """Open the page. Fails if the page sends requests to another host, or if the browser reports warnings or errors."""
    docs = Docs(page, served)
    yield docs
    assert {urlsplit(url).netloc for url in docs.requested} == {urlsplit(served).netloc}
    assert not docs.messages


@pytest.fixture(scope="module")
def operations(served: str) -> dict[str, Document]:
    """Return the operations of the OpenAPI description by operationId."""
    description = httpx.get(f"{served}/docs/openapi.json", trust_env=False).json()
    return {one["operationId"]: one for methods in description["paths"].values() for one in methods.values()}


def test_the_registration_example_works_unchanged(docs: Docs) -> None:
    status, body = docs.execute("postRegister")
    assert status == 201
    assert json.loads(body)["user"]["username"] == "alice"


def test_a_token_is_accepted_until_logout(docs: Docs) -> None:
    assert docs.execute("getHelloSecret")[0] == 401
    docs.register()
    assert docs.execute("getHelloSecret") == (200, '{\n  "Hello": "Secret!"\n}')
    assert docs.execute("postLogout")[0] == 204
    status, body = docs.execute("getHelloSecret")
    assert (status, json.loads(body)["code"]) == (401, "session_ended")


def test_a_login_by_username_and_password_authorizes_the_page(docs: Docs) -> None:
    """OAuth 2.0's password grant: no token is copied."""
    username = new_name()
    assert docs.execute("postRegister", username=username, password=PASSWORD)[0] == 201
    docs.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
    dialog = docs.page.locator(".modal-ux")
    dialog.locator("#oauth_username").fill(username)
    dialog.locator("#oauth_password").fill(PASSWORD)
    dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
    dialog.get_by_role("button", name="Remove authorization").first.wait_for()
    dialog.get_by_role("button", name="Close").first.click()
    assert docs.execute("getHelloSecret") == (200, '{\n  "Hello": "Secret!"\n}')


def lacking(operation: Document) -> list[str]:
    """Return the codes with which an operation refuses a user without an authenticator."""
    return ["wrong_code", *(["step_up_required"] if operation.get("x-second-factor") else [])]


def test_every_operation_can_be_tried_out(docs: Docs, served: str, operations: dict[str, Document]) -> None:
    """With the unchanged examples, every operation returns a status that its description declares.

    The examples are valid: if they name no user and no session in the path, a user with a token may also execute the
    operation, or lacks the access level, a second factor or the code of an authenticator. An operation can end the
    session: then a new user tries the next one.
    """
    token, ending = docs.register_elsewhere(), []
    for name, operation in operations.items():
        status, body = docs.execute(name)
        docs.fold(name)
        assert str(status) in operation["responses"], (name, status)
        if status >= 400 and json.loads(body).get("code") in lacking(operation):
            continue
        assert status not in INVALID_REQUEST, (name, status)
        assert status < 500, (name, status)
        if operation["security"]:
            in_path = [one for one in operation.get("parameters", ()) if one["in"] == "path"]
            assert status < 300 or status in ({403, 404} if in_path else {403}), (name, status)
        me = httpx.get(f"{served}/auth/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        if me.status_code == 401:
            assert status < 300, (name, status)
            ending.append(name)
            token = docs.register_elsewhere()
    assert ending, "an operation such as a logout ends the session"


def test_the_content_security_policy_is_enforced(served: str, page: Page) -> None:
    """The page runs no inline script and sends no requests to other hosts."""
    page.goto(f"{served}/docs")
    page.evaluate(
        """() => {
            window.refused = [];
            document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            const image = new Image();
            image.src = "http://127.0.0.1:1/";
            document.body.append(script, image);
            fetch("http://127.0.0.1:1/").catch(() => {});
        }"""
    )
    page.wait_for_function("refused.length === 3")
    assert page.evaluate("refused.sort()") == ["connect-src", "img-src", "script-src-elem"]
    assert page.evaluate("window.ran") is None


def test_the_files_of_the_page_are_cached(served: str, page: Page) -> None:
    """The next visit requests only the OpenAPI description, which is revalidated and unchanged (304)."""
    show(page, served)
    page.goto(f"{served}/tests/hello")
    show(page, served)
    resources = page.evaluate("performance.getEntriesByType('resource')")
    loaded = {urlsplit(one["name"]).path: one["transferSize"] for one in resources if "favicon" not in one["name"]}
    assert len(loaded) > 1
    assert [path for path, size in loaded.items() if size] == ["/docs/openapi.json"]
    assert loaded["/docs/openapi.json"] < UNCHANGED_BYTES


def test_the_page_fits_a_narrow_screen(docs: Docs) -> None:
    docs.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert not docs.scrolls_horizontally()
    block = docs.unfold("postRegister")
    assert not docs.scrolls_horizontally()
    example = block.locator(".response[data-code='201'] .highlight-code").first
    assert width_and_height(example)[0] >= EXAMPLE_WIDTH
    assert width_and_height(block)[1] < REGISTRATION_HEIGHT


def test_refusals_are_shown_without_examples(docs: Docs) -> None:
    """Their codes are one line; an example of each would fill several screens."""
    block = docs.unfold("postRegister")
    refusal = block.locator(".response[data-code='422']")
    assert refusal.get_by_text("invalid_fields").first.is_visible()
    examples = refusal.locator(".highlight-code")
    assert examples.count()
    assert not any(one.is_visible() for one in examples.all())


@pytest.mark.parametrize("path", ["/docs", "/docs/errors"])
def test_the_background_is_dark_in_a_dark_color_scheme(served: str, page: Page, path: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(f"{served}{path}")
    # A page without a background of its own has that of the browser, which follows `color-scheme`.
    color = page.evaluate(
        """() => {
            const own = getComputedStyle(document.body).backgroundColor;
            if (own !== "rgba(0, 0, 0, 0)") return own;
            document.body.style.backgroundColor = "Canvas";
            return getComputedStyle(document.body).backgroundColor;
        }"""
    )
    red, green, blue, *_ = map(int, re.findall(r"\d+", color))
    assert max(red, green, blue) <= DARK, color


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page_works_behind_a_proxy_that_strips_a_prefix(served: str, page: Page, path: str) -> None:
    """It is rendered, calls the service below the prefix, and its link to the page of errors works."""
    with prefix_proxy("127.0.0.1", urlsplit(served).port or 0, "/api") as (proxy, url):
        docs = Docs(page, url, path)
        assert docs.execute("getHello") == (200, '{\n  "Hello": "World!"\n}')
        shown = docs.block("getHello").locator(".request-url").inner_text()
        assert f"{url}/tests/hello" in shown
        assert "GET /api/tests/hello" in proxy.lines
        docs.register()
        assert docs.execute("getHelloSecret")[0] == 200
        docs.page.goto(docs.page.locator(".info a", has_text="errors").evaluate("link => link.href"))
        assert docs.page.url == f"{url}/docs/errors"
        assert docs.page.locator("main.errors table").count()
        assert all(requested.startswith(f"{url}/") for requested in docs.requested)
        assert not docs.messages
        page.close()


def test_the_page_links_to_a_page_of_all_error_codes(docs: Docs) -> None:
    link = docs.page.locator(".info a", has_text="errors")
    docs.page.goto(link.evaluate("link => link.href"))
    assert urlsplit(docs.page.url).path == "/docs/errors"
    listed = docs.page.locator("td:first-child code").all_inner_texts()
    assert {code.value for code in Code} <= set(listed)
    docs.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert not docs.scrolls_horizontally()


def test_the_root_redirects_to_the_page(served: str, page: Page) -> None:
    page.goto(served)
    assert page.url == f"{served}/docs"


def test_the_screenshot_for_the_readme_can_be_taken(docs: Docs, tmp_path: Path) -> None:
    screenshot = SCREENSHOT if os.environ.get("RENEW_SCREENSHOT") else tmp_path / SCREENSHOT.name
    block = docs.open("postRegister")
    execute = block.locator(".execute-wrapper").bounding_box()
    width = docs.page.evaluate("document.documentElement.clientWidth")
    assert execute
    docs.page.mouse.move(0, 0)
    height = execute["y"] + docs.page.evaluate("window.scrollY") + execute["height"] + 20
    docs.page.screenshot(
        path=screenshot, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}, animations="disabled"
    )
    assert screenshot.stat().st_size < SCREENSHOT_BYTES
    assert re.match(rb"\x89PNG", SCREENSHOT.read_bytes())
    assert PASSWORD in block.locator("textarea").input_value()


def test_a_user_enrols_and_logs_in_with_a_second_factor_by_the_page_alone(docs: Docs) -> None:
    name = new_name()
    status, body = docs.execute("postRegister", username=name)
    assert status == 201, body
    docs.authorize(json.loads(body)["access_token"])
    status, body = docs.execute("postMyTotp")
    assert status == 200, body
    code = pyotp.TOTP(json.loads(body)["secret"]).now()
    status, body = docs.execute("postMyTotpConfirmation", code=code)
    assert status == 200, body
    recovery_code = json.loads(body)["recovery_codes"][0]
    assert docs.execute("postLogout")[0] == 204
    status, body = docs.execute("postLogin", username=name)
    assert (status, json.loads(body)["code"]) == (401, "second_factor_required")
    status, body = docs.execute("postSecondFactors", challenge=json.loads(body)["challenge"], code=recovery_code)
    assert status == 200, body
    docs.authorize(json.loads(body)["access_token"])
    assert docs.execute("getHelloSecret")[0] == 200
