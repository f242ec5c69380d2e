"""CORS: every preflight is answered, and scripts of allowed origins can read every response (Fetch standard)."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from config import Config
from tests.conftest import Actor, Service
from tests.test_errors import raw

FIRST, SECOND = "https://app.example.com", "http://localhost:3000"
ORIGINS = [FIRST, SECOND]
OTHERS = [
    "null",
    "*",
    "",
    f"{FIRST}.evil.example",
    "https://evil-app.example.com",
    "https://app-example.com",
    "https://appXexample.com",
    "http://app.example.com",
    f"{FIRST}:443",
    f"{FIRST}/",
    f"{FIRST}, {FIRST}",
    f"{FIRST} {SECOND}",
    FIRST.upper(),
    "https://app.example.com@evil.example",
    "http://localhost",
    "http://localhost:30000",
]
EXPOSED = {"retry-after", "www-authenticate", "x-request-id", "allow"}
PATHS = [
    "/auth",
    "/users",
    "/users/registration",
    f"/users/{24 * '0'}",
    "/users/nobody",
    "/users/%ff%00",
    f"/users/{24 * 'A'}/",
    "/auth/sessions/x",
    f"/auth/sessions/{22 * 'x'}",
    "/tests/hello",
    "/health/ready",
    "/docs/openapi.json",
    "/nowhere",
    "/no/such/path/at/all?x=1",
    "/",
    "//",
]


@pytest.fixture(scope="module")
def cors(config: Config) -> Iterator[Service]:
    """Run the service with two allowed origins."""
    with Service(config.model_copy(update={"CORS_ORIGINS": ORIGINS})) as service:
        yield service


@pytest.fixture(scope="module")
def any_origin(config: Config) -> Iterator[Service]:
    """Run the service with all origins allowed."""
    with Service(config.model_copy(update={"CORS_ORIGINS": ["*"]})) as service:
        yield service


def request(line: str, *fields: str, origin: str | None) -> bytes:
    """Return a request with these fields and an origin."""
    origins = [] if origin is None else [f"Origin: {origin}"]
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", "Connection: close", *fields, *origins, "", ""]).encode()


def head(response: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of a response."""
    status, *fields = response.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    names = [field.partition(": ")[0].lower() for field in fields]
    assert len(set(names)) == len(names)
    return int(status.split()[1]), {name: field.partition(": ")[2] for name, field in zip(names, fields, strict=True)}


def words(value: str) -> set[str]:
    """Return the members of a list in a header."""
    return {word.strip().lower() for word in value.split(",")}


def ask(service: Service, path: str, method: str, origin: str, *fields: str) -> tuple[int, dict[str, str]]:
    """Send a preflight."""
    fields = f"Access-Control-Request-Method: {method}", *fields
    return head(raw(service, request(f"OPTIONS {path}", *fields, origin=origin)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "PUT", "QUERY"])
def test_a_preflight_is_answered_for_every_path_and_method(cors: Service, path: str, method: str) -> None:
    """Also where the request itself is refused, or the browser would hide the refusal from the script."""
    asked = "Access-Control-Request-Headers: authorization, Content-Type,x-evil"
    for origin in ORIGINS:
        status, headers = ask(cors, path, method, origin, asked)
        assert status == 204
        assert headers["access-control-allow-origin"] == origin
        assert method.lower() in words(headers["access-control-allow-methods"])
        assert words(headers["access-control-allow-headers"]) == {"authorization", "content-type"}
        assert int(headers["access-control-max-age"]) > 0
        assert words(headers["vary"]) == {"origin"}
        assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origin", OTHERS, ids=repr)
def test_other_origins_get_no_permission(cors: Service, origin: str) -> None:
    """Neither a preflight nor a response names them (suffix and prefix tricks, null, several origins)."""
    for path in ("/auth", "/nowhere"):
        status, headers = ask(cors, path, "POST", origin, "Access-Control-Request-Headers: authorization")
        assert status == 204
        assert [name for name in headers if name.startswith("access-control")] == []
        assert words(headers["vary"]) == {"origin"}
    _, headers = head(raw(cors, request("GET /tests/hello", origin=origin)))
    assert [name for name in headers if name.startswith("access-control")] == []
    assert words(headers["vary"]) == {"origin"}


def test_two_origins_get_no_permission(cors: Service) -> None:
    for line in ("GET /tests/hello", "OPTIONS /auth"):
        fields = f"Origin: {FIRST}", "Access-Control-Request-Method: POST"
        _, headers = head(raw(cors, request(line, *fields, origin=FIRST)))
        assert "access-control-allow-origin" not in headers


LONG = "X: " + 20_000 * "y"
RESPONSES: dict[str, tuple[int, str, list[str]]] = {
    "success": (200, "GET /tests/hello", []),
    "head": (200, "HEAD /tests/hello", []),
    "options": (204, "OPTIONS /auth", []),
    "health": (200, "GET /health/live", []),
    "page": (200, "GET /docs", []),
    "description": (200, "GET /docs/openapi.json", []),
    "redirect": (302, "GET /", []),
    "malformed JSON": (400, "POST /auth", ["Content-Type: application/json"]),
    "no token": (401, "GET /tests/secret", []),
    "no token in a list": (401, "GET /auth/sessions", []),
    "unknown path": (404, "GET /nowhere", []),
    "unknown id": (404, "GET /users/nobody", []),
    "wrong method": (405, "PUT /auth", []),
    "unknown method": (405, "BREW /auth", []),
    "another media type": (415, "POST /auth", ["Content-Type: text/plain"]),
    "unknown expectation": (417, "POST /auth", ["Expect: y", "Content-Length: 1"]),
    "long body": (413, "POST /auth", ["Content-Type: application/json", "Content-Length: 999999999"]),
    "long head": (413, "GET /tests/hello", [LONG]),
    "malformed target": (400, "GET http://x", []),
    "malformed length": (400, "POST /auth", ["Content-Length: y"]),
    "malformed field": (400, "GET /tests/hello", ["X\0: y"]),
    "malformed chunk": (400, "POST /auth", ["Content-Type: application/json", "Transfer-Encoding: chunked"]),
    "two hosts": (400, "GET /tests/hello", ["Host: y"]),
}


@pytest.mark.parametrize("kind", RESPONSES)
def test_scripts_of_allowed_origins_can_read_every_response(cors: Service, kind: str) -> None:
    """Refusals included, and those that are made before routing; caches see that they vary."""
    expected, line, fields = RESPONSES[kind]
    end = b"x\r\n" if kind == "malformed chunk" else b""
    for origin in ORIGINS:
        status, headers = head(raw(cors, request(line, *fields, origin=origin) + end, half_close=False))
        assert status == expected
        assert headers["access-control-allow-origin"] == origin
        assert words(headers["access-control-expose-headers"]) == EXPOSED
        assert words(headers["vary"]) == {"origin"}
        assert "access-control-allow-credentials" not in headers
    for other in ("https://evil.example", None):
        status, headers = head(raw(cors, request(line, *fields, origin=other) + end))
        assert status == expected
        assert "access-control-allow-origin" not in headers
        assert words(headers["vary"]) == {"origin"}


def test_a_long_head_is_readable_whether_the_origin_is_first_or_last(cors: Service) -> None:
    for fields in ((f"Origin: {FIRST}", LONG), (LONG, f"Origin: {FIRST}")):
        status, headers = head(raw(cors, request("GET /tests/hello", *fields, origin=None)))
        assert (status, headers["access-control-allow-origin"]) == (413, FIRST)


def test_an_unchanged_response_varies_too(cors: Service) -> None:
    """Or a cache would give the response for one origin to scripts of another."""
    etag = cors("GET", "/docs/openapi.json").headers["etag"]
    for origin, allowed in ((FIRST, FIRST), (None, None), ("https://evil.example", None)):
        headers = {"If-None-Match": etag} | ({"Origin": origin} if origin else {})
        response = cors("GET", "/docs/openapi.json", headers=headers)
        assert response.status_code == 304
        assert response.headers.get("access-control-allow-origin") == allowed
        assert response.headers["vary"] == "Origin"


def test_scripts_can_read_that_the_service_is_unavailable(cors: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cors.app.ctx, "draining", True)
    response = cors("GET", "/health/ready", headers={"Origin": FIRST})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (503, FIRST)
    assert "retry-after" in words(response.headers["access-control-expose-headers"])


def test_scripts_can_read_an_unexpected_error(cors: Service, alice: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(cors.app.ctx.users, "by_id", broken)
    response = cors("GET", "/auth/me", token=alice.tokens["access_token"], headers={"Origin": FIRST})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (500, FIRST)


def test_scripts_can_read_that_a_request_came_too_late(config: Config) -> None:
    """408 is made by the time limit, not by a handler."""
    with Service(config.model_copy(update={"CORS_ORIGINS": ORIGINS, "REQUEST_TIMEOUT": 1})) as service:

        async def stall() -> bytes:
            reader, writer = await asyncio.open_connection(*service.address)
            writer.write(f"GET /tests/hello HTTP/1.1\r\nHost: x\r\nOrigin: {FIRST}\r\nX: ".encode())
            response = await reader.read()
            writer.close()
            return response

        status, headers = head(service.run(stall()))
    assert (status, headers["access-control-allow-origin"]) == (408, FIRST)


def test_options_without_a_preflight_lists_the_methods(cors: Service) -> None:
    """OPTIONS is a preflight only with both headers (Fetch standard, section 3.2.2)."""
    for headers in ({}, {"Origin": FIRST}, {"Access-Control-Request-Method": "POST"}):
        assert cors("OPTIONS", "/auth", headers=headers).headers["allow"] == "POST,OPTIONS"
        assert cors("OPTIONS", "/nowhere", headers=headers).status_code == 404


@pytest.mark.parametrize("origin", [FIRST, "null", "https://evil.example", None])
def test_with_every_origin_allowed_the_response_is_the_same_for_all(any_origin: Service, origin: str | None) -> None:
    """It does not vary, and allows no credentials."""
    for kind in ("success", "no token", "long head"):
        _, line, fields = RESPONSES[kind]
        _, headers = head(raw(any_origin, request(line, *fields, origin=origin)))
        assert headers["access-control-allow-origin"] == "*"
        assert "vary" not in headers
        assert "access-control-allow-credentials" not in headers
    if origin:
        status, headers = ask(any_origin, "/nowhere", "PUT", origin, "Access-Control-Request-Headers: Authorization")
        assert (status, headers["access-control-allow-origin"]) == (204, "*")
        assert headers["access-control-allow-headers"] == "authorization"
        assert "put" in words(headers["access-control-allow-methods"])


def test_without_origins_there_is_no_trace_of_cors(service: Service) -> None:
    headers = {"Origin": FIRST, "Access-Control-Request-Method": "POST"}
    assert service("OPTIONS", "/nowhere", headers=headers).status_code == 404
    for response in (service("GET", "/tests/hello", headers=headers), service("OPTIONS", "/auth", headers=headers)):
        assert not re.search("access-control|vary", str(response.headers))
    assert service.app.ctx.cors is None


def test_more_request_headers_can_be_allowed(config: Config) -> None:
    names = ["Authorization", "content-type", "X-Trace"]
    settings = type(config)(**{**config.model_dump(), "CORS_ORIGINS": ORIGINS, "CORS_HEADERS": names})
    with Service(settings) as service:
        _, headers = ask(service, "/auth", "POST", FIRST, "Access-Control-Request-Headers: x-trace,x-request-id")
    assert words(headers["access-control-allow-headers"]) == {"x-trace"}
