"""The documentation page, as somebody uses it who has only a browser.

RENEW_SCREENSHOT=1 scripts/test browser writes the README's picture of it anew.
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

PICTURE = CHECKOUT / "docs" / "docs-page.png"
PICTURE_BYTES = 200_000
UNCHANGED_BYTES = 1000  # at most, of an answer that says only that nothing has changed
REFUSED = "Failed to load resource: the server responded with a status of 4"  # Chromium's note of each 4xx
# What a user who has just registered meets at every operation that ends nothing.
ANSWERS = {
    "getHello": 200,
    "getHelloSecret": 200,
    "postLogin": 401,  # by a name that nobody has
    "postTokenRefresh": 401,  # of a token that is only an example
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
ENDS = {"postLogout": 204, "postLogoutAll": 204, "postMyPassword": 200, "postMyDeletion": 204}


class Docs:
    """The page, what it asked for, and what the browser had to say about it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._asks)
        page.on("console", self._says)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{url}/docs")
        self.block("getHello").wait_for()

    def _asks(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.asked.append(request.url)

    def _says(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(REFUSED):
            self.complaints.append(message.text)

    def block(self, operation: str) -> Locator:
        """Find an operation's part of the page."""
        return self.page.locator(f"[id^=operations-][id$='-{operation}']")

    def open(self, operation: str) -> Locator:
        """Unfold an operation, and have the form to try it out."""
        block = self.block(operation)
        if "is-open" not in (block.get_attribute("class") or ""):
            block.locator(".opblock-summary-control").click()
            block.get_by_role("button", name="Try it out").click()
        return block

    def execute(self, operation: str, **changes: str) -> tuple[int, str]:
        """Press Execute, after changes of the example, and return status and body as the page shows them."""
        block = self.open(operation)
        if changes:
            body = block.locator("textarea.body-param__text")
            body.fill(json.dumps(json.loads(body.input_value()) | changes))
        with self.page.expect_response(lambda response: response.request.resource_type == "fetch") as answered:
            block.get_by_role("button", name="Execute").click()
        shown = block.locator(".live-responses-table tbody tr").first
        shown.locator(".response-col_status", has_text=str(answered.value.status)).wait_for()
        code = shown.locator(".response-col_description .highlight-code code")
        return answered.value.status, code.first.inner_text() if code.count() else ""

    def enter(self) -> None:
        """Register under a name of one's own, and show the token from then on."""
        status, body = self.execute("postRegister", username=f"alice-{secrets.token_hex(6)}")
        assert status == 201, body
        self.authorize(json.loads(body)["access_token"])

    def authorize(self, token: str) -> None:
        """Give the page a token."""
        self.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
        dialog = self.page.locator(".modal-ux")
        dialog.locator("#auth-bearer-value").fill(token)
        dialog.get_by_role("button", name="Apply credentials").click()
        dialog.get_by_role("button", name="Close").click()
        dialog.wait_for(state="detached")


@pytest.fixture
def docs(served: str, page: Page) -> Iterator[Docs]:
    """Open the page. Whatever is done there, nobody else hears of it, and the browser has nothing to say."""
    docs = Docs(page, served)
    yield docs
    assert {urlsplit(url).netloc for url in docs.asked} == {urlsplit(served).netloc}
    assert not docs.complaints


@pytest.fixture(scope="module")
def operations(served: str) -> dict[str, Document]:
    """Read the description: operations by their ids."""
    description = httpx.get(f"{served}/docs/openapi.json", trust_env=False).json()
    return {one["operationId"]: one for methods in description["paths"].values() for one in methods.values()}


def test_the_first_visitor_registers_with_the_example_as_it_is(docs: Docs) -> None:
    status, body = docs.execute("postRegister")
    assert status == 201
    assert json.loads(body)["user"]["username"] == "alice"


def test_a_token_opens_the_secret_until_its_session_is_logged_out(docs: Docs) -> None:
    assert docs.execute("getHelloSecret")[0] == 401
    docs.enter()
    assert docs.execute("getHelloSecret") == (200, '{\n  "Hello": "Secret!"\n}')
    assert docs.execute("postLogout")[0] == 204
    status, body = docs.execute("getHelloSecret")
    assert (status, json.loads(body)["code"]) == (401, "session_ended")


@pytest.mark.parametrize("operation", ENDS)
def test_sessions_can_be_ended_with_the_example_as_it_is(docs: Docs, operation: str) -> None:
    docs.enter()
    assert docs.execute(operation)[0] == ENDS[operation]
    assert docs.execute("getMe")[0] == 401


def test_every_operation_can_be_tried_out(docs: Docs, operations: dict[str, Document]) -> None:
    """With the examples that are filled in, every one answers as it is described, and finds them well-formed."""
    assert {*ANSWERS, *ENDS, "postRegister"} == set(operations)
    docs.enter()
    # Whether somebody is called as in the example depends on the tests before.
    changes = {"postLogin": {"username": f"nobody-{secrets.token_hex(6)}"}}
    statuses = {operation: docs.execute(operation, **changes.get(operation, {}))[0] for operation in ANSWERS}
    assert statuses == ANSWERS
    for operation, status in statuses.items():
        assert str(status) in operations[operation]["responses"]


def test_the_policy_holds(served: str, page: Page) -> None:
    """No script runs that is written into the page, and no other host is asked for anything."""
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


def test_the_page_loads_its_files_once(served: str, page: Page) -> None:
    """On the next visit they are still there, and what may have changed is asked for and found unchanged."""
    page.goto(f"{served}/docs", wait_until="networkidle")
    page.goto(f"{served}/tests/hello")
    page.goto(f"{served}/docs", wait_until="networkidle")
    resources = page.evaluate("performance.getEntriesByType('resource')")
    loaded = {urlsplit(one["name"]).path: one["transferSize"] for one in resources if "favicon" not in one["name"]}
    assert len(loaded) == 4
    assert [path for path, size in loaded.items() if size] == ["/docs/openapi.json"]
    assert loaded["/docs/openapi.json"] < UNCHANGED_BYTES


def test_the_picture_in_the_readme_can_be_made(docs: Docs, tmp_path: Path) -> None:
    picture = PICTURE if os.environ.get("RENEW_SCREENSHOT") else tmp_path / PICTURE.name
    block = docs.open("postRegister")
    execute = block.locator(".execute-wrapper").bounding_box()
    width = docs.page.evaluate("document.documentElement.clientWidth")
    assert execute
    docs.page.mouse.move(0, 0)
    height = execute["y"] + docs.page.evaluate("window.scrollY") + execute["height"] + 20
    docs.page.screenshot(
        path=picture, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}, animations="disabled"
    )
    assert picture.stat().st_size < PICTURE_BYTES
    assert re.match(rb"\x89PNG", PICTURE.read_bytes())
    assert PASSWORD in block.locator("textarea").input_value()
