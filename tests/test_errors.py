"""Errors have one format everywhere, and reveal no internal details."""

import asyncio
import json
import re
import socket
from typing import Any

import pytest
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure, WriteConcernError
from sanic.application.constants import Mode
from sanic.exceptions import ServerError

from app.http.problems import framework_problem
from app.refusals import refusal
from tests.conftest import Actor, Service
from tests.interleaving import Held, hang_up
from tests.routes import ROUTES, example_path

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def raw(service: Service, request: bytes, *, half_close: bool = True) -> bytes:
    """Send bytes that no client library would send; return the whole response.

    A request that has to wait is dropped when its client closes its half of the connection.
    """

    def exchange() -> bytes:
        with socket.create_connection(service.address, timeout=5) as connection:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            response = b""
            while part := connection.recv(65536):
                response += part
            return response

    async def in_a_thread() -> bytes:
        return await asyncio.to_thread(exchange)

    response: bytes = service.run(in_a_thread())
    return response


@pytest.mark.parametrize("accept", ["application/json", "text/html", "application/xml", "*/*"])
def test_an_unknown_path_returns_404_in_one_format_for_every_accept_header(service: Service, accept: str) -> None:
    response = service("GET", "/no/such/path?token=x", headers={"Accept": accept})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) == MEMBERS
    assert "such" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/tests/hello", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/tests/secret", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/auth", {"POST", "OPTIONS"}),
        ("PUT", "/auth/refresh", {"POST", "OPTIONS"}),
        ("GET", "/users/registration", {"POST", "OPTIONS"}),
        ("POST", f"/users/{'0' * 24}", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("GET", f"/auth/sessions/{'x' * 22}", {"DELETE", "OPTIONS"}),
        ("POST", f"/users/{'0' * 24}/", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("GET", f"/auth/sessions/{'x' * 22}/", {"DELETE", "OPTIONS"}),
        ("BREW", "/auth", {"POST", "OPTIONS"}),
    ],
)
def test_a_405_response_lists_the_allowed_methods(service: Service, method: str, path: str, allowed: set[str]) -> None:
    response = service(method, path)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert {name.strip() for name in response.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_every_route_answers_options_and_head(service: Service, path: str, slash: str) -> None:
    """RFC 9110 sections 9.3.2 and 9.3.7: OPTIONS lists the methods; HEAD has the status and headers of GET."""
    methods = {method.upper() for method, of in ROUTES if of == path}
    concrete = example_path(next(iter(methods)).lower(), path) + slash
    options = service("OPTIONS", concrete)
    assert (options.status_code, options.content) == (204, b"")
    heads = {"HEAD"} if "GET" in methods else set()
    assert {*options.headers["allow"].split(",")} == methods | heads | {"OPTIONS"}
    head, get = service("HEAD", concrete), service("GET", concrete)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/%00",
            "/%ff",
            "/%2e%2e/%2e%2e",
            "/%",
            "/%zz",
            "/%F0%9F%98%80",
            "/tests/hello%0d%0aX-Injected:%20y",
            "/..%2f",
        ),
        *(
            "/users/%2e",
            f"/users/{24 * '%30'}",
            "/users/<script>",
            "/users/{user_id}",
            "/auth/sessions/%00",
            "/\\",
            "/;",
        ),
        *(f"/users/{24 * '0'}%20", f"/users/%20{24 * '0'}", f"/auth/sessions/{21 * 'x'}%78", "/docs/%2e%2e/errors"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_encoded_and_unusual_paths_are_404_problems(service: Service, method: str, path: str) -> None:
    response = raw(service, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"x-injected" not in head.lower()
    assert (json.loads(body)["code"] == "not_found") if method != "HEAD" else body == b""
    assert path.encode() not in body


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
def test_unsupported_methods_are_rejected(service: Service, method: str) -> None:
    assert service(method, "/tests/secret").status_code in (400, 404, 405)


@pytest.mark.parametrize("path", ["/tests/hello", "/tests/secret", "/auth/me"])
def test_head_returns_the_content_length_of_get_without_a_body(service: Service, alice: Actor, path: str) -> None:
    head = service("HEAD", path, token=alice.tokens["access_token"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == alice.get(path).headers["content-length"]


def test_head_and_options_do_not_bypass_authentication(service: Service) -> None:
    assert service("HEAD", "/tests/secret").status_code == 401
    options = service("OPTIONS", "/tests/secret")
    assert (options.status_code, options.content) == (204, b"")
    assert "GET" in options.headers["allow"]


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_method_override_headers_have_no_effect(service: Service, header: str) -> None:
    response = service("GET", "/auth", headers={header: "POST"})
    assert response.status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/tests//secret",
        "//tests/secret",
        "/tests/./secret",
        "/tests/../tests/secret",
        "/tests/%73ecret",
        "/tests/%2573ecret",
        "/tests%2fsecret",
        "/tests%2Fsecret",
        "/tests\\secret",
        "/TESTS/secret",
        "/tests/secret/",
        "/tests/secret;x=1",
        "/tests/secret?x",
        "/tests/secret%00",
        "http://x/tests/secret",
    ],
)
def test_other_spellings_of_a_path_do_not_bypass_authentication(service: Service, path: str) -> None:
    response = raw(service, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert response.startswith((b"HTTP/1.1 401", b"HTTP/1.1 404"))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /tests/hello HTTP/1.1\r\nHost: x\r\nBroken header\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_malformed_requests_get_problem_details(
    service: Service, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """They log no traceback, because clients could fill the log with tracebacks."""
    response = raw(service, request_bytes)
    assert response.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in response
    assert b"x-request-id: " in response
    assert not [record for record in caplog.records if record.exc_info]


SMUGGLED = b"GET /tests/hello HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 0\r\nContent-Length: LENGTH\r\n\r\n",
        b"Content-Length: 0, LENGTH\r\n\r\n",
        b"Content-Length: +LENGTH\r\n\r\n",
        b"Content-Length: LENGTH\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        b"Content-Length : LENGTH\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"X: y\nContent-Length: LENGTH\r\n\r\n",
        b"X: y\rContent-Length: LENGTH\r\n\r\n",
        b"X: y\r\n Content-Length: LENGTH\r\n\r\n",
        b"X: y\0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
    ],
    ids=[
        "two Content-Length fields",
        "two lengths in one field",
        "signed length",
        "Content-Length and Transfer-Encoding",
        "chunked twice",
        "unknown transfer coding",
        "trailer field",
        "space before the colon of Content-Length",
        "space before the colon of Transfer-Encoding",
        "bare LF",
        "bare CR",
        "folded line (obs-fold)",
        "NUL byte",
        "chunk without final CRLF",
    ],
)
def test_request_smuggling_by_ambiguous_framing_is_rejected(service: Service, rest: bytes) -> None:
    """A proxy that parses the framing differently would forward a second request that it has not seen."""
    head = b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    response = raw(service, head + rest.replace(b"LENGTH", str(len(SMUGGLED)).encode()) + SMUGGLED)
    assert re.findall(rb"HTTP/1\.1 (\d{3})", response) == [b"400"]


@pytest.mark.parametrize(
    "line",
    [
        "PUT /auth",
        "POST /nowhere",
        "POST /auth/logout",
        "GET /tests/hello",
        "HEAD /tests/hello",
        "OPTIONS /auth",
        "GET /docs",
    ],
)
def test_an_unread_body_is_not_parsed_as_a_request(service: Service, line: str) -> None:
    head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n".encode()
    assert len(re.findall(rb"HTTP/1\.1 \d{3}", raw(service, head + SMUGGLED))) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", ["/tests/hello", "/nowhere", "/health/live"])
def test_the_request_id_of_the_client_is_returned_if_it_is_well_formed(
    service: Service, method: str, path: str
) -> None:
    """It is in every response, and in the body of every error. Otherwise the service generates an id."""
    for sent in ("abc-1.2_3", "0123456789" * 12):
        response = service(method, path, headers={"X-Request-ID": sent})
        assert response.headers["x-request-id"] == sent
        assert response.headers["x-content-type-options"] == "nosniff"
        assert method == "HEAD" or response.is_success or response.json()["request_id"] == sent
    for sent in ("", "a b", "<script>", "x" * 129, "{}"):
        generated = service(method, path, headers={"X-Request-ID": sent}).headers["x-request-id"]
        assert generated != sent
        assert len(generated) == 32


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConnectionFailure("host 10.0.0.1"), 503),
        (ExecutionTimeout("slow"), 503),
        (WriteConcernError("no majority"), 503),
        (OperationFailure("auth failed for user root", 18), 503),
        (OperationFailure("unknown operator $foo", 2), 500),
        (ServerError("Invalid response type None"), 500),
        (ZeroDivisionError("division by zero"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_responses_reveal_no_internal_details(error: Exception, status: int) -> None:
    problem = refusal(error) or framework_problem(error)
    assert problem.status_code == status
    assert str(error) not in problem.detail
    assert ("Retry-After" in problem.headers) == (status == 503)


def test_a_client_disconnect_is_not_logged_as_an_unexpected_exception(
    service: Service, alice: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        with Held(service.app.ctx.users, "by_id", "before") as held:
            request = asyncio.create_task(service.send("GET", "/auth/me", token=alice.tokens["access_token"]))
            await held.reached()
            await hang_up(request)

    service.run(story())
    assert "unexpected" not in caplog.text


@pytest.mark.parametrize("mode", Mode)
def test_an_unexpected_exception_is_logged_but_not_revealed(
    service: Service, alice: Actor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    """Also in debug mode, in which Sanic would show the traceback."""

    async def broken(*_: Any) -> None:
        raise RuntimeError("confidential detail")

    monkeypatch.setattr(service.app.state, "mode", mode)
    monkeypatch.setattr(service.app.ctx.users, "by_id", broken)
    response = alice.get("/auth/me")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "confidential" not in response.text
    assert response.json()["request_id"] in caplog.text
    assert "confidential detail" in caplog.text


def test_an_unavailable_database_returns_503_with_retry_after(
    service: Service, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: Any) -> None:
        raise ConnectionFailure("connection refused by db1.internal")

    monkeypatch.setattr(service.app.ctx.users, "by_name", unavailable)
    body = {"username": alice.username, "password": alice.password}
    response = service("POST", "/auth", json=body)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert "internal" not in response.text
