"""The OpenAPI description: every route, as it is."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from config import Config
from tests.conftest import Service

Document = dict[str, Any]

ROUTES = {
    ("get", "/tests/hello"): "Greet everyone.",
    ("get", "/tests/secret"): "Greet whoever shows an access token.",
    ("post", "/users/registration"): "Register a user and log in.",
    ("post", "/auth"): "Log in with username and password.",
    ("post", "/auth/refresh"): "Exchange a refresh token for new tokens.",
    ("get", "/auth/verify"): "Tell whether the access token holds, and what it claims.",
    ("get", "/auth/me"): "Show the user to whom the access token belongs.",
    ("post", "/auth/logout"): "End this session.",
    ("post", "/auth/logout-all"): "End every session of this user.",
    ("get", "/auth/sessions"): "List one's sessions that go on.",
    ("delete", "/auth/sessions/{session_id}"): "End one of one's sessions.",
    ("post", "/users/me/password"): "Change one's password; every other session ends, and a fresh one begins.",
    ("post", "/users/me/delete"): "Delete one's account and end all its sessions.",
    ("get", "/users"): "List users in the order of their ids, which is that of their registration.",
    ("get", "/users/{user_id}"): "Show a user.",
    ("patch", "/users/{user_id}"): "Change a user's access or disable the user; all its sessions end.",
    ("delete", "/users/{user_id}"): "Delete a user and end all its sessions.",
    ("get", "/health/live"): "Tell that the process answers.",
    ("get", "/health/ready"): "Tell whether the service can serve: database reachable, revocations fresh.",
}


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    """Run an app of this module's own: the process describes only the one that was made last."""
    with Service(config) as service:
        yield service


@pytest.fixture(scope="module")
def description(service: Service) -> Document:
    """Give the description as it is served."""
    response = service("GET", "/docs/openapi.json")
    assert response.status_code == 200
    document: Document = response.json()
    return document


def operations(description: Document) -> dict[tuple[str, str], Document]:
    return {
        (method, path): operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_by_its_docstring(description: Document) -> None:
    summaries = {route: operation["summary"] for route, operation in operations(description).items()}
    assert summaries == ROUTES


def test_protected_routes_ask_for_a_bearer_token(service: Service, description: Document) -> None:
    scheme = description["components"]["securitySchemes"]["bearerAuth"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for (method, path), operation in operations(description).items():
        named = path.replace("{session_id}", "s" * 22).replace("{user_id}", "0" * 24)
        locked = service(method.upper(), named).status_code == 401
        assert locked == (operation.get("security") == [{"bearerAuth": []}])
        assert locked <= ("401" in operation["responses"])


def test_every_shape_that_is_named_is_there(description: Document) -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert named <= set(description["components"]["schemas"])
    assert {"Registration", "Credentials", "Tokens", "ProblemOut"} <= named


def test_bodies_are_described(description: Document) -> None:
    for (method, path), operation in operations(description).items():
        has_body = method in ("post", "patch") and "logout" not in path
        assert has_body == ("requestBody" in operation)
    shape = description["components"]["schemas"]["Registration"]
    assert shape["required"] == ["username", "password"]
    assert shape["additionalProperties"] is False


def test_the_page_is_served(service: Service) -> None:
    response = service("GET", "/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
