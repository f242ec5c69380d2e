"""The OpenAPI description of every route, and the page that shows it with files of this service only."""

import asyncio
import hashlib
import inspect
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from pydantic import TypeAdapter
from sanic import Request
from sanic.compat import Header

from app.background import repeat
from app.database.time_limit import TimeLimit
from app.http.codes import Code
from app.http.forms import FORM
from app.http.problems import ProblemDetails
from app.http.static import Content
from app.openapi import page
from app.security.generations import Generations
from config import Config
from tests.conftest import Actor, Document, Service
from tests.prefix_proxy import prefix_proxy
from tests.processes import TIMEOUT_SECONDS
from tests.routes import HANDLERS, ROUTES, operation_at
from tests.test_errors import raw


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    """Run an app with production's minimum length of passwords."""
    with Service(config.model_copy(update={"PASSWORD_MIN_LENGTH": 15})) as service:
        yield service


@pytest.fixture(scope="module")
def description(service: Service) -> Document:
    """Return the served description."""
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
    assert summaries == {route: inspect.cleandoc(HANDLERS[route].__doc__).partition("\n")[0] for route in ROUTES}
    assert all(summaries.values())


def test_every_route_of_the_router_is_described(service: Service, description: Document) -> None:
    views = [route for route in service.app.router.routes if getattr(route.handler, "view_class", None)]
    paths = {re.sub(r"<(\w+)[^>]*>", r"{\1}", f"/{route.path}") for route in views}
    assert paths == set(description["paths"]) == {path for _, path in ROUTES}


def test_protected_routes_ask_for_a_bearer_token(service: Service, description: Document) -> None:
    scheme = description["components"]["securitySchemes"]["bearerAuth"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for (method, path), described in operations(description).items():
        examples = {one["name"]: one.get("example") for one in described.get("parameters", [])}
        locked = service(method.upper(), path.format(**examples)).status_code == 401
        assert described["security"] == ([{"password": []}, {"bearerAuth": []}] if locked else [])
        assert locked <= ("401" in described["responses"])


def test_every_referenced_schema_exists(description: Document) -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert named <= set(description["components"]["schemas"])
    assert {"Registration", "Credentials", "Tokens", "ProblemDetails"} <= named


def test_bodies_are_described(description: Document) -> None:
    """An operation has a body exactly if its handler reads one."""
    for route, handler in HANDLERS.items():
        reads = {"read", "read_form"} & set(inspect.unwrap(handler).__code__.co_names)
        assert bool(reads) == ("requestBody" in operations(description)[route])
    shape = description["components"]["schemas"]["Registration"]
    assert shape["required"] == ["username", "password"]
    assert shape["additionalProperties"] is False


def test_every_operation_has_a_unique_name_and_a_described_tag(description: Document) -> None:
    names = [operation["operationId"] for operation in operations(description).values()]
    assert len(set(names)) == len(names)
    assert all(name.isalpha() for name in names)
    tags = [tag["name"] for tag in description["tags"]]
    assert tags == list(dict.fromkeys(tag for one in operations(description).values() for tag in one["tags"]))


def example(schema: Document) -> Document:
    """Return a body made of the examples of its fields, as Swagger UI makes it."""
    if "examples" in schema:
        return dict(schema["examples"][0])
    return {name: part["examples"][0] for name, part in schema["properties"].items()}


def test_examples_of_bodies_are_valid(description: Document) -> None:
    for shape in filter(None, {operation_at(*route).body for route in ROUTES}):
        schema = description["components"]["schemas"][shape.__name__]
        body = example(schema)
        assert "examples" in schema or set(body) == set(shape.model_fields)
        assert shape.model_validate_json(json.dumps(body))


def test_examples_of_parameters_are_valid(description: Document) -> None:
    """Required parameters have an example; optional ones have none, since the page would send it."""
    for route in ROUTES:
        for parameter in operations(description)[route].get("parameters", []):
            assert parameter["required"] == ("example" in parameter)
            assert "examples" not in parameter["schema"]
            if parameter["required"]:
                TypeAdapter(operation_at(*route).path[parameter["name"]]).validate_python(parameter["example"])


def test_the_example_of_a_registration_registers_and_logs_in(service: Service, description: Document) -> None:
    shapes = description["components"]["schemas"]
    name = f"alice-{secrets.token_hex(6)}"
    assert service("POST", "/users/registration", json=example(shapes["Registration"]) | {"username": name}).is_success
    login = service("POST", "/auth", json=example(shapes["Credentials"]) | {"username": name})
    token = login.json()["access_token"]
    change = service("POST", "/users/me/password", token=token, json=example(shapes["PasswordChange"]))
    assert change.status_code == 200


def refusals(description: Document) -> Iterator[tuple[int, Document]]:
    """Yield every refusal of every operation, with its status."""
    for described in operations(description).values():
        for status, response in described["responses"].items():
            whole = resolved(description, response)
            if "application/problem+json" in whole.get("content", {}):
                yield int(status), whole


def resolved(description: Document, part: Document) -> Document:
    """Return a part, or the component that it refers to."""
    for name in part.get("$ref", "").split("/")[1:]:
        description = description[name]
    return description if "$ref" in part else part


def test_refusals_have_an_example_for_each_code_of_their_enum(description: Document) -> None:
    for status, response in refusals(description):
        problem = response["content"]["application/problem+json"]
        codes = problem["schema"]["allOf"][1]["properties"]["code"]["enum"]
        assert codes == list(problem["examples"])
        for code, example in problem["examples"].items():
            assert (example["value"]["code"], example["value"]["status"]) == (code, status)
            assert ProblemDetails(**example["value"])
            assert (code, status) in {(one.value, one.status) for one in Code}
            assert code in response["description"]


def test_every_response_declares_its_headers(description: Document) -> None:
    for described in operations(description).values():
        for status, response in described["responses"].items():
            declared = set(resolved(description, response)["headers"])
            assert "x-request-id" in declared
            assert (status in ("401", "403")) == ("WWW-Authenticate" in declared)
            assert (status in ("429", "503")) == ("Retry-After" in declared)
            assert (status == "405") == ("Allow" in declared)


def test_every_operation_declares_what_the_server_answers_with(description: Document) -> None:
    for described in operations(description).values():
        assert {"400", "404", "405", "408", "413", "417", "500", "503"} <= set(described["responses"])


def test_operations_that_use_the_database_can_be_unavailable(
    service: Service, description: Document, appoint: Callable[[], Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only those. A new administrator calls each operation with the examples of its description."""
    asked: list[bool] = []
    apply = TimeLimit.apply
    background = {repeat.__qualname__, Generations._try_to_finish.__qualname__}  # which finishes what it finds at once

    async def recording(limit: TimeLimit, call: Awaitable[Any]) -> Any:
        task = asyncio.current_task()
        if task and task.get_coro().__qualname__ not in background:  # type: ignore[union-attr]
            asked.append(limit._request_context() is not None)
        return await apply(limit, call)

    for (method, path), described in operations(description).items():
        parameters = {one["name"]: one.get("example") for one in described.get("parameters", [])}
        tokens = appoint().tokens
        known = {"refresh_token": tokens["refresh_token"], "token": tokens["refresh_token"]}
        options = {}
        for media_type, content in described.get("requestBody", {}).get("content", {}).items():
            body = example(resolved(description, content["schema"]))
            body |= {name: value for name, value in known.items() if name in body and "/auth/reset" not in path}
            options["data" if media_type == FORM else "json"] = body
        with monkeypatch.context() as patched:
            patched.setattr(TimeLimit, "apply", recording)
            asked.clear()
            response = service(method.upper(), path.format(**parameters), token=tokens["access_token"], **options)
            uses_database = any(asked)
            if response.status_code >= 400 and response.json()["code"] in ("not_enabled", "step_up_required"):
                continue  # tests/test_second_factor.py calls it with a key, and with a second factor
        assert all(asked), "every call is part of the request's time budget"
        unavailable = resolved(description, described["responses"]["503"])
        assert uses_database == ("store_unavailable" in unavailable["description"]), path


def addresses(service: Service, page_path: str = "/docs") -> set[str]:
    """Return the paths that a page refers to, by addresses relative to its own."""
    found = re.findall(r'(?:href|src)="([^"]*)"', service("GET", page_path).text)
    assert found
    assert not [address for address in found if address.startswith("/") or ":" in address]
    return {urljoin(page_path, address) for address in found}


def test_the_page_loads_nothing_from_other_hosts(service: Service) -> None:
    response = service("GET", "/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    assert all(address.startswith("/docs/") for address in addresses(service))
    assert "<script>" not in response.text
    assert "style=" not in response.text


PAGES = ["/docs", "/docs/", "/docs/errors", "/docs/errors/"]


@pytest.mark.parametrize("path", PAGES)
def test_addresses_of_pages_are_relative_and_exist(service: Service, path: str) -> None:
    """With and without a slash at the end of the page's own address."""
    for address in addresses(service, path):
        assert service("GET", address).status_code == 200
    assert addresses(service, path) == addresses(service, path.rstrip("/"))


@pytest.mark.parametrize("path", PAGES)
def test_pages_work_behind_a_proxy_that_strips_a_prefix(service: Service, path: str) -> None:
    """All files of the page, and the operations of its description, are found below the prefix."""

    async def story(url: str) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
            page = await client.get(f"{url}{path}")
            assert page.status_code == 200
            for address in re.findall(r'(?:href|src)="([^"]*)"', page.text):
                assert (await client.get(urljoin(f"{url}{path}", address))).status_code == 200
            described = f"{url}/docs/openapi.json"
            (server,) = (await client.get(described)).json()["servers"]
            base = urljoin(described, server["url"])
            assert base == f"{url}/"
            assert (await client.get(f"{base}tests/hello")).json() == {"Hello": "World!"}
            assert (await client.get(f"{url}/")).url == f"{url}/docs"

    for prefix in ("/api", "/a/b/c"):
        with prefix_proxy(*service.address, prefix) as (proxy, url):
            service.run(story(url))
        assert all(line.split()[1].startswith(f"{prefix}/") for line in proxy.lines)


def test_files_of_the_page_are_cached_under_paths_with_their_digest(service: Service) -> None:
    files = addresses(service) - {"/docs/openapi.json"}
    assert len(files) == len(page.FILES)
    for address in files:
        response = service("GET", address)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert hashlib.sha256(response.content).hexdigest().startswith(address.split("/")[2])


def test_first_requests_at_once_read_a_file_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(iter(page.FILES))
    content, file = Content(path, "text/javascript"), path.read_bytes()
    request = Request(b"/", Header({}), "1.1", "GET", None, service.app)  # type: ignore[arg-type] # it needs no transport
    reads: list[Path] = []

    def read(path: Path) -> bytes:
        reads.append(path)
        return file

    async def story() -> None:
        responses = await asyncio.gather(*[content(request) for _ in range(10)])
        assert {response.body for response in responses} == {file}

    monkeypatch.setattr(Path, "read_bytes", read)
    service.run(story())
    assert reads == [path]


@pytest.mark.parametrize("path", [*PAGES, "/docs/openapi.json"])
def test_pages_are_revalidated_by_etag(service: Service, path: str) -> None:
    """A client that has the content receives 304, also through a proxy that compresses (weak ETags)."""
    response = service("GET", path)
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    tag = response.headers["etag"]
    for known in (tag, f"W/{tag}", f'"another", {tag}'):
        unchanged = service("GET", path, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    assert service("GET", path, headers={"If-None-Match": '"another"'}).content == response.content


def test_only_the_needed_files_are_served(service: Service) -> None:
    """No source map, no licence, no path traversal."""
    files = sorted(addresses(service) - {"/docs/openapi.json"})
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


def test_the_page_supports_get_head_and_options(service: Service) -> None:
    for path in (*PAGES, *addresses(service)):
        whole, head = service("GET", path), service("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers, "x-request-id": ""} == {**whole.headers, "x-request-id": ""}
        options = service("OPTIONS", path)
        assert options.status_code == 204
        assert {*options.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS"}
        assert options.headers["x-content-type-options"] == "nosniff"
        assert service("POST", path).status_code == 405


def test_the_copy_of_swagger_ui_is_unchanged() -> None:
    """Its files have the digests that tools/swagger_ui.py recorded."""
    manifest = json.loads((page.SWAGGER_UI / "manifest.json").read_text())
    assert manifest["version"].startswith("5.")
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((page.SWAGGER_UI / name).read_bytes()).hexdigest() == digest
    here = {path.name for path in page.SWAGGER_UI.iterdir()}
    assert here == {*manifest["sha256"], "manifest.json", ".gitattributes"}


def test_the_documentation_can_be_switched_off(config: Config) -> None:
    """With everything below it, and the redirect to it."""
    with Service(config.model_copy(update={"DOCS": False})) as service:
        for path in ("/docs", "/docs/", "/docs/errors", "/docs/openapi.json", "/"):
            response = service("GET", path)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert service("GET", "/tests/hello").status_code == 200
