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
import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, Request

from tests.conftest import PASSWORD, Document
from tests.serving import CHECKOUT

SCREENSHOT = CHECKOUT / "docs" / "docs-page.png"
SCREENSHOT_BYTES = 200_000
UNCHANGED_BYTES = 1000  # the maximum size of a 304 response
CLIENT_ERROR = "Failed to load resource: the server responded with a status of 4"  # Chromium logs this for each 4xx
# The statuses that a new user gets from all operations that end no session.
STATUSES = {
    "getHello": 200,
    "getHelloSecret": 200,
    "postLogin": 401,  # with an unknown username
    "postTokenRefresh": 401,  # with the example token, which is not valid
    "getVerify": 200,
    "getMe": 200,
    "getMySessions": 200,
    "deleteMySession": 404,
    "getAllUsers": 403,
    "getOneUser": 403,
    "patchOneUser": 403,
    "deleteOneUser": 403,
    "getLive": 200,
    "getReady": 200,
    "getMetrics": 200,
}
ENDING_STATUSES = {"postLogout": 204, "postLogoutAll": 204, "postMyPassword": 200, "postMyDeletion": 204}


class Docs:
    """The page, the URLs that it requested, and the warnings and errors of the browser."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.requested: list[str] = []
        self.messages: list[str] = []
        page.on("request", self._on_request)
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.goto(f"{url}/docs")
        self.block("getHello").wait_for()

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requested.append(request.url)

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(CLIENT_ERROR):
            self.messages.append(message.text)

    def block(self, operation: str) -> Locator:
        """Return the section of an operation."""
        return self.page.locator(f"[id^=operations-][id$='-{operation}']")

    def open(self, operation: str) -> Locator:
        """Expand an operation and open its "Try it out" form."""
        block = self.block(operation)
        if "is-open" not in (block.get_attribute("class") or ""):
            block.locator(".opblock-summary-control").click()
            block.get_by_role("button", name="Try it out").click()
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

    def register(self) -> None:
        """Register a new user, and send the access token with all further requests."""
        status, body = self.execute("postRegister", username=f"alice-{secrets.token_hex(6)}")
        assert status == 201, body
        self.authorize(json.loads(body)["access_token"])

    def authorize(self, token: str) -> None:
        """Enter an access token in the page."""
        self.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".modal-ux")
        dialog.locator("#auth-bearer-value").fill(token)
        dialog.get_by_role("button", name="Apply credentials").click()
        dialog.get_by_role("button", name="Close").click()
        dialog.wait_for(state="detached")


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


@pytest.mark.parametrize("operation", ENDING_STATUSES)
def test_the_examples_of_operations_that_end_sessions_work_unchanged(docs: Docs, operation: str) -> None:
    docs.register()
    assert docs.execute(operation)[0] == ENDING_STATUSES[operation]
    assert docs.execute("getMe")[0] == 401


def test_every_operation_can_be_tried_out(docs: Docs, operations: dict[str, Document]) -> None:
    """With the unchanged examples, every operation returns the expected status, which its description declares."""
    assert {*STATUSES, *ENDING_STATUSES, "postRegister"} == set(operations)
    docs.register()
    # An earlier test can have registered the username of the example.
    changes = {"postLogin": {"username": f"unknown-{secrets.token_hex(6)}"}}
    statuses = {operation: docs.execute(operation, **changes.get(operation, {}))[0] for operation in STATUSES}
    assert statuses == STATUSES
    for operation, status in statuses.items():
        assert str(status) in operations[operation]["responses"]


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
    page.goto(f"{served}/docs", wait_until="networkidle")
    page.goto(f"{served}/tests/hello")
    page.goto(f"{served}/docs", wait_until="networkidle")
    resources = page.evaluate("performance.getEntriesByType('resource')")
    loaded = {urlsplit(one["name"]).path: one["transferSize"] for one in resources if "favicon" not in one["name"]}
    assert len(loaded) == 4
    assert [path for path, size in loaded.items() if size] == ["/docs/openapi.json"]
    assert loaded["/docs/openapi.json"] < UNCHANGED_BYTES


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
