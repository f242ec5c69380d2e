"""Invalid input gets a specific error response, never a 500, and no record is lost or partly written."""

import json
import secrets
from typing import Any

import httpx
import pytest

from tests.conftest import PASSWORD, Actor, Document, Service

ROUTES = {
    "/users/registration": {"username": "somebody", "password": PASSWORD},
    "/auth": {"username": "somebody", "password": PASSWORD},
    "/auth/refresh": {"refresh_token": "x"},
}
FIELDS = [(path, field) for path, body in ROUTES.items() for field in body]
JSON = {"Content-Type": "application/json"}


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Fail unless a response is a problem (RFC 9457) with this status and code, within 3 seconds."""
    body = response.json()
    assert response.elapsed.total_seconds() < 3
    assert (response.status_code, body["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"username": "a", }',
        b"\xff\xfe{\x00}\x00",
        b'\xef\xbb\xbf{"username": "a"}',
        b'{"username": "\xff"}',
        b'{"username": NaN, "password": Infinity}',
        b'{"username": "first", "username": "second", "password": "x"}',
        b'{"username": ' + b"9" * 5000 + b"}",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"username": ' + b'{"a":' * 4000 + b"1" + b"}" * 4001,
        "\ufeff{}".encode("utf-16"),
    ],
    ids=lambda content: content[:12].decode("latin-1"),
)
def test_malformed_json_is_rejected(service: Service, path: str, content: bytes) -> None:
    assert_problem(service("POST", path, content=content, headers=JSON), 400, "malformed_json")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("body", [[], ["a"], "text", 7, 1.5, True, None])
def test_json_that_is_not_an_object_is_rejected(service: Service, path: str, body: Any) -> None:
    assert_problem(service("POST", path, content=json.dumps(body).encode(), headers=JSON), 400, "not_an_object")


@pytest.mark.parametrize(("path", "field"), FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        {"$ne": None},
        {"$gt": ""},
        {"$regex": ".*"},
        {"$where": "sleep(1)"},
        {"$oid": "0" * 24},
        [],
        ["a"],
        7,
        1.5,
        True,
        None,
    ],
    ids=repr,
)
def test_a_field_of_the_wrong_type_is_reported(service: Service, path: str, field: str, value: Any) -> None:
    response = service("POST", path, json={**ROUTES[path], field: value})
    assert_problem(response, 422, "invalid_fields")
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize(("path", "field"), FIELDS)
def test_a_missing_field_is_reported(service: Service, path: str, field: str) -> None:
    body = {name: value for name, value in ROUTES[path].items() if name != field}
    response = service("POST", path, json=body)
    assert_problem(response, 422, "invalid_fields")
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(("path", "field"), FIELDS)
@pytest.mark.parametrize("text", ['"\\ud800"', '"' + "a" * 30_000 + '"'], ids=["lone surrogate", "30 kB"])
def test_lone_surrogates_and_oversized_strings_are_rejected(service: Service, path: str, field: str, text: str) -> None:
    others = {name: value for name, value in ROUTES[path].items() if name != field}
    content = json.dumps(others).removesuffix("}") + (", " if others else "") + f'"{field}": {text}}}'
    response = service("POST", path, content=content.encode(), headers=JSON)
    assert_problem(response, 422, "invalid_fields")
    assert len(response.content) < 1000, "the response does not repeat the input"


@pytest.mark.parametrize("path", ROUTES)
def test_an_unknown_field_is_reported_in_a_short_response(service: Service, path: str) -> None:
    for name in ("role", "\ud800", "a" * 10_000, "$where", "__proto__"):
        content = json.dumps({**ROUTES[path], name: 1}).encode()
        response = service("POST", path, content=content, headers=JSON)
        assert_problem(response, 422, "invalid_fields")
        assert len(response.content) < 1000


@pytest.mark.parametrize("path", ROUTES)
def test_thousands_of_unknown_fields_are_reported_in_a_short_response(service: Service, path: str) -> None:
    content = json.dumps({**ROUTES[path], **{f"{number:x}": 1 for number in range(4000)}}, separators=(",", ":"))
    assert 30_000 < len(content) < service.config.REQUEST_MAX_SIZE
    response = service("POST", path, content=content.encode(), headers=JSON)
    assert_problem(response, 422, "invalid_fields")
    assert len(response.content) < 3000


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "", "json"]
)
def test_other_content_types_are_rejected(service: Service, path: str, content_type: str) -> None:
    content = json.dumps(ROUTES[path]).encode()
    response = service("POST", path, content=content, headers={"Content-Type": content_type})
    assert_problem(response, 415, "unsupported_media_type")


def test_a_compressed_body_is_rejected(service: Service) -> None:
    response = service("POST", "/auth", content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": "gzip"})
    assert_problem(response, 415, "unsupported_media_type")


def test_the_charset_utf_8_is_accepted(service: Service) -> None:
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
    assert service("POST", "/auth", content=json.dumps(ROUTES["/auth"]).encode(), headers=headers).status_code == 401


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_above_the_limit_is_rejected(service: Service, path: str) -> None:
    content = b'{"username": "' + b"a" * service.config.REQUEST_MAX_SIZE + b'"}'
    assert_problem(service("POST", path, content=content, headers=JSON), 413, "payload_too_large")


PROTECTED: dict[tuple[str, str], Document] = {
    ("POST", "/users/me/password"): {"current_password": PASSWORD, "new_password": "a quite different sentence"},
    ("POST", "/users/me/delete"): {"current_password": PASSWORD},
    ("PATCH", "/users/{bob}"): {"access": "user", "disabled": False},
}
INVALID_VALUES = [{"$ne": None}, {"$gt": ""}, {"$regex": ".*"}, ["a"], 7, 1.5, None, "\ud800", "a" * 30_000, 2**70]
MALFORMED = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"a":NaN}',
    b"[" * 10_000 + b"]" * 10_000,
    b'{"access":' + b'{"a":' * 4000 + b"1" + b"}" * 4001,
    b'{"disabled":true,"disabled":false}',
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_protected_routes_reject_invalid_input_without_changes(
    service: Service, admin: Actor, bob: Actor, method: str, path: str
) -> None:
    """Routes that require a token respond like the public ones, within the same time."""
    valid, token = PROTECTED[method, path], admin.tokens["access_token"]
    address = path.format(bob=bob.claims["sub"])
    for field in (*valid, "role", "_id", "is_admin"):
        for value in INVALID_VALUES:
            content = json.dumps({**valid, field: value}).encode()
            response = service(method, address, token=token, content=content, headers=JSON)
            assert_problem(response, 422, "invalid_fields")
            assert [error["field"] for error in response.json()["errors"]] == [field]
    for content in MALFORMED:
        response = service(method, address, token=token, content=content, headers=JSON)
        assert_problem(response, 400, "malformed_json")
    assert_problem(service(method, address, token=token, content=b"[]", headers=JSON), 400, "not_an_object")
    assert (admin.secret_status, bob.secret_status) == (200, 200)


@pytest.mark.parametrize("body", [None, {}, "username only"])
def test_credentials_in_the_query_have_no_effect(service: Service, alice: Actor, body: Any) -> None:
    """Proxies and servers log the query."""
    sent = {"username": alice.username} if body else body
    response = service("POST", "/auth", params={"username": alice.username, "password": PASSWORD}, json=sent)
    assert response.status_code == (415 if body is None else 422)


def test_a_user_agent_that_is_not_utf_8_is_accepted(service: Service) -> None:
    """The user agent is stored with the session; any value of it is accepted."""
    body = {"username": f"heidi-{secrets.token_hex(4)}", "password": PASSWORD}
    headers = {"User-Agent": "$$NOW \xff\xfe".encode("latin-1")}
    assert service("POST", "/users/registration", json=body, headers=headers).status_code == 201
    assert service("POST", "/auth", json=body, headers={"User-Agent": "$user_id"}).status_code == 200


def test_a_response_never_contains_the_password(service: Service) -> None:
    body = {"username": "x", "password": "hunter2"}
    assert "hunter2" not in service("POST", "/users/registration", json=body).text
    assert "hunter2" not in service("POST", "/auth", json={**body, "password": ["hunter2"]}).text
