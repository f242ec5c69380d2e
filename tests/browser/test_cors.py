"""Tests of CORS in a browser: a script of another origin reads every response, refusals included."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.browser.sites import one_worker
from tests.conftest import Document
from tools.local_mongo import free_port

FETCH = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        const text = await response.text();
        return [response.status, response.headers.get("x-request-id").length > 0, text && JSON.parse(text).code];
    } catch (error) {
        return error.name;
    }
}"""
BEARER = {"Authorization": "Bearer x"}
JSON = {"Content-Type": "application/json"}
REQUESTS: dict[str, tuple[str, Document, int, str]] = {
    "no token": ("/tests/secret", {}, 401, "token_missing"),
    "an invalid token": ("/auth/me", {"headers": BEARER}, 401, "token_invalid"),
    "an unknown path": ("/nowhere", {"method": "PATCH", "headers": BEARER}, 404, "not_found"),
    "an unknown id": ("/users/nobody", {"method": "DELETE", "headers": BEARER}, 404, "not_found"),
    "a wrong method": ("/auth", {"method": "PUT", "headers": JSON, "body": "{}"}, 405, "method_not_allowed"),
    "an invented method": ("/auth", {"method": "BREW"}, 405, "method_not_allowed"),
    "malformed JSON": ("/auth", {"method": "POST", "headers": JSON, "body": "{"}, 400, "malformed_json"),
    "a long header": ("/tests/hello", {"headers": {"X-Request-ID": 9000 * "x"}}, 413, "payload_too_large"),
    "a long body": (
        "/auth",
        {"method": "POST", "headers": JSON, "body": 2_000_000 * " "},
        413,
        "payload_too_large",
    ),
}


@pytest.fixture(scope="module")
def served(mongo_uri: str) -> Iterator[int]:
    """Run the service; http://127.0.0.1 is an allowed origin, http://localhost is another one."""
    port = free_port()
    variables = {"APP_CORS_ORIGINS": f"http://127.0.0.1:{port}"}
    with one_worker(f"{mongo_uri}_browser", "--host=localhost", port=port, variables=variables):
        yield port


@pytest.mark.parametrize("what", REQUESTS)
def test_a_script_of_an_allowed_origin_reads_the_refusal(served: int, page: Page, what: str) -> None:
    path, options, status, code = REQUESTS[what]
    page.goto(f"http://127.0.0.1:{served}/tests/hello")
    assert page.evaluate(FETCH, [f"http://localhost:{served}{path}", options]) == [status, True, code]


@pytest.mark.parametrize("what", REQUESTS)
def test_a_script_of_another_origin_reads_nothing(served: int, page: Page, what: str) -> None:
    path, options, _, _ = REQUESTS[what]
    page.goto(f"http://localhost:{served}/tests/hello")
    assert page.evaluate(FETCH, [f"http://127.0.0.1:{served}{path}", options]) == "TypeError"
