"""The OpenAPI description: every route, as it is; and the page that shows it, with files from nowhere else."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator

import pytest
from pydantic import TypeAdapter

import app.openapi.description
from app.http.bodies import Body
from app.http.problems import ProblemOut
from app.openapi import page
from app.openapi.refusals import CODES
from config import Config
from tests.conftest import Document, Service
from tests.test_error_codes import told
from tests.test_errors import raw

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
    ("get", "/metrics"): "Tell Prometheus what was counted, summed over all workers.",
}
BODIES = [shape for shape in app.openapi.description.SCHEMAS if issubclass(shape, Body)]


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    """Run an app of this module's own, which asks for passwords as long as production does."""
    with Service(config.model_copy(update={"PASSWORD_MIN_LENGTH": 15})) as service:
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


def test_every_operation_has_a_name_of_its_own_and_a_tag_that_is_described(description: Document) -> None:
    names = [operation["operationId"] for operation in operations(description).values()]
    assert len(set(names)) == len(ROUTES)
    assert all(name.isalpha() for name in names)
    tags = [tag["name"] for tag in description["tags"]]
    assert tags == list(dict.fromkeys(tag for one in operations(description).values() for tag in one["tags"]))


def example(schema: Document) -> Document:
    """Make a body of the examples of its fields, as Swagger UI does."""
    return {name: part["example"] for name, part in schema["properties"].items()}


@pytest.mark.parametrize("shape", BODIES, ids=lambda shape: shape.__name__)
def test_examples_of_bodies_are_good_ones(description: Document, shape: type[Body]) -> None:
    body = example(description["components"]["schemas"][shape.__name__])
    assert set(body) == set(shape.model_fields)
    assert shape.model_validate_json(json.dumps(body))


def test_examples_of_parameters_are_good_ones(description: Document) -> None:
    """What has to be given has an example; what may be left out has none that would be sent along."""
    for operation in operations(description).values():
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            assert parameter["required"] == ("example" in schema)
            if parameter["required"]:
                TypeAdapter(app.openapi.description.PATH_PARAMETERS[parameter["name"]]).validate_python(
                    schema["example"]
                )


def test_the_example_of_a_registration_registers_and_logs_in(service: Service, description: Document) -> None:
    shapes = description["components"]["schemas"]
    name = f"alice-{secrets.token_hex(6)}"
    assert service("POST", "/users/registration", json=example(shapes["Registration"]) | {"username": name}).is_success
    login = service("POST", "/auth", json=example(shapes["Credentials"]) | {"username": name})
    token = login.json()["access_token"]
    change = service("POST", "/users/me/password", token=token, json=example(shapes["PasswordChange"]))
    assert change.status_code == 200


def test_refusals_have_an_example_for_each_code(description: Document) -> None:
    for operation in operations(description).values():
        for status, response in operation["responses"].items():
            if problem := response.get("content", {}).get("application/problem+json"):
                for code, example in problem["examples"].items():
                    assert (example["value"]["code"], example["value"]["status"]) == (code, int(status))
                    assert ProblemOut(**example["value"])
                    assert code in response["description"]


def test_the_codes_of_refusals_are_those_that_are_documented() -> None:
    assert set(CODES.items()) <= set(told("From the service"))


def addresses(text: str) -> set[str]:
    """Find what a page refers to."""
    return set(re.findall(r'(?:href|src)="([^"]*)"', text))


def test_the_page_lets_nothing_in_from_elsewhere(service: Service) -> None:
    response = service("GET", "/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    assert all(address.startswith("/docs/") for address in addresses(response.text))
    assert "<script>" not in response.text
    assert "style=" not in response.text


def test_the_files_of_the_page_are_kept_for_ever_under_addresses_that_change_with_them(service: Service) -> None:
    files = addresses(service("GET", "/docs").text) - {"/docs/openapi.json"}
    assert len(files) == len(page.FILES)
    for address in files:
        response = service("GET", address)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert hashlib.sha256(response.content).hexdigest().startswith(address.split("/")[2])


@pytest.mark.parametrize("path", ["/docs", "/docs/openapi.json"])
def test_what_may_change_is_asked_for_again(service: Service, path: str) -> None:
    """And is not sent again to whoever has it, also by way of a proxy that compresses it."""
    response = service("GET", path)
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    tag = response.headers["etag"]
    for known in (tag, f"W/{tag}", f'"another", {tag}'):
        unchanged = service("GET", path, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    assert service("GET", path, headers={"If-None-Match": '"another"'}).content == response.content


def test_only_the_files_that_are_needed_are_served(service: Service) -> None:
    """No map, no licence, no path out of the folder."""
    files = sorted(addresses(service("GET", "/docs").text) - {"/docs/openapi.json"})
    folder = files[0].rpartition("/")[0]
    for name in (
        "LICENSE",
        "manifest.json",
        "swagger-ui.css.map",
        "",
        "%2e%2e%2fpage.html",
        "%2e%2e%2f%2e%2e%2fpage.py",
    ):
        assert service("GET", f"{folder}/{name}").status_code == 404
    for path in (f"{folder}/../page.html", "/docs/../README.md", "/docs//etc/passwd"):  # which httpx would tidy up
        answer = raw(service, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 ")
    for gone in ("/docs/redoc", "/docs/swagger", "/docs/swagger-config", "/docs/oauth2-redirect.html"):
        assert service("GET", gone).status_code == 404


def test_the_page_answers_every_method_sensibly(service: Service) -> None:
    for path in ("/docs", "/docs/openapi.json", *addresses(service("GET", "/docs").text)):
        whole, head = service("GET", path), service("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers, "x-request-id": ""} == {**whole.headers, "x-request-id": ""}
        options = service("OPTIONS", path)
        assert options.status_code == 204
        assert {*options.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS"}
        assert options.headers["x-content-type-options"] == "nosniff"
        assert service("POST", path).status_code == 405


def test_the_copy_of_swagger_ui_is_what_was_published() -> None:
    """Nobody has changed a file since tools/swagger_ui.py brought it."""
    manifest = json.loads((page.SWAGGER_UI / "manifest.json").read_text())
    assert manifest["version"].startswith("5.")
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((page.SWAGGER_UI / name).read_bytes()).hexdigest() == digest
    here = {path.name for path in page.SWAGGER_UI.iterdir()}
    assert here == {*manifest["sha256"], "manifest.json", ".gitattributes"}
