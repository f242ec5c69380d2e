"""What the service uses of Sanic beyond its documentation, and what it does in Sanic's place: with the same results."""

import ast
import asyncio
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
import sanic
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from sanic import HTTPResponse, Sanic
from sanic.compat import Header
from sanic.exceptions import SanicException
from sanic.http import Http
from sanic.response import file_stream, json, text
from sanic.router import Router
from sanic.server.protocols.http_protocol import HttpProtocol
from sanic.worker.manager import WorkerManager

from app import create_app
from app.context import App, Request
from app.metrics.batches import Batch
from app.server import internals, requests
from app.server.handling import is_plain
from config import Config
from tests.conftest import Service
from tests.serving import CHECKOUT

UNDOCUMENTED = (Http, HttpProtocol)  # Sanic's documentation has none of their names
DOCUMENTED = (HTTPResponse, sanic.Request, Router, Sanic, WorkerManager)  # but for the names with an underscore
# What also belongs to the app, the request, the response or a class of our own.
OF_OTHERS = {"_name", "_state", "connections", "ctx", "request_class", "respond", "send", "signal", "version"}
OF_ASYNCIO = set(dir(asyncio.Protocol))
PATHS = {
    "text": "/text",
    "json with a header": "/json",
    "an argument": "/argument/a%20b?x=1&x=2",
    "no coroutine": "/sync",
    "streamed": "/streamed",
    "a file": "/file",
    "no content": "/empty",
    "nothing": "/nothing",
    "no response": "/dict",
    "an exception": "/raises",
    "a teapot": "/teapot",
    "an unknown path": "/unknown",
}

HEADS = [
    "GET /echo HTTP/1.1",
    "GET /echo HTTP/1.0",
    "GET /echo?a=1&a=%C3%A9 HTTP/1.1\r\nACCEPT:a\r\naccept: b \r\nEmpty:\r\nTabs:\t x\t",
    "GET http://localhost/echo HTTP/1.1",
    "GET /echo HTTP/1.1\r\nConnection: close",
    "GET /echo HTTP/1.1\r\nConnection: Keep-Alive",
    "GET /echo HTTP/1.0\r\nConnection: Keep-Alive",
    "GET /echo HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive",
    "GET /echo HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
    "GET /echo HTTP/1.1\r\nX-Bytes: \xe9\xff",
    "GET /echo HTTP/1.1\r\nExpect: 100-continue",
    "HEAD /echo HTTP/1.1",
]


def names(owner: type) -> set[str]:
    """Return the names that Sanic gives a class and its bases."""
    bases = [base for base in owner.__mro__ if base.__module__.startswith("sanic")]
    found = {name for base in bases for name in (*vars(base), *getattr(base, "__slots__", ()))}
    return {name for name in found if not name.startswith("__")} - OF_ASYNCIO


def used(path: Path) -> set[str]:
    """Return the attributes that a module reads, sets or overrides."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return functions | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_every_undocumented_name_is_listed() -> None:
    listed = {name for owner in internals.NAMES for name in internals.NAMES[owner]}
    private = {name for owner in DOCUMENTED for name in names(owner) if name.startswith("_")}
    undocumented = {name for owner in UNDOCUMENTED for name in names(owner)}
    found = set()
    for path in (CHECKOUT / "app").rglob("*.py"):
        found |= used(path) & (private | undocumented if path.parent.name == "server" else private)
    assert listed == found - OF_OTHERS


def test_a_release_of_sanic_without_such_a_name_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "NAMES", {Http: ("stage", "gone")})
    with pytest.raises(SystemExit, match=r"^Sanic [\d.]+ lacks Http.gone: "):
        create_app(config=config)


def test_a_request_has_the_fields_of_sanic_and_shares_none() -> None:
    copy_context().run(compare_requests)  # each becomes the current request


def compare_requests() -> None:
    """Compare two of our requests with one of Sanic."""
    http = type("Connection", (), {"protocol": type("Protocol", (), {"app": None, "transport": None})})
    ours, other = (
        requests.Request(http, b"/a?b=c", Header({"x": "y"}), version="1.1", method="GET", head=b"") for _ in range(2)
    )
    theirs: Any = sanic.Request(b"/a?b=c", Header({"x": "y"}), "1.1", "GET", None, None)  # type: ignore[arg-type]
    for name in sanic.Request.__slots__:
        if name in ("__weakref__", "_parsed_url", "stream") or not hasattr(theirs, name):
            continue
        value = getattr(ours, name)
        assert value == getattr(theirs, name), name
        assert value is not getattr(other, name) or not isinstance(value, dict | Header), name
    assert (ours.path, ours.args) == (theirs.path, theirs.args)


async def text_(_: Request) -> HTTPResponse:
    return text("text")


async def json_(_: Request) -> HTTPResponse:
    return json({"a": 1}, headers={"x-own": "1"})


async def argument_(request: Request, name: str) -> HTTPResponse:
    return json([name, request.args, request.match_info])


async def echo_(request: Request) -> HTTPResponse:
    fields = [(name, value.encode("utf-8", "surrogateescape").hex()) for name, value in request.headers.items()]
    return json([request.method, request.version, request.url, request.head.hex(), fields])


def sync_(_: Request) -> HTTPResponse:
    return text("sync")


async def streamed_(request: Request) -> None:
    response = await request.respond(content_type="text/plain")
    await response.send("a")
    await response.send("b")


async def file_(_: Request) -> Any:
    return await file_stream(CHECKOUT / "LICENSE")


async def empty_(_: Request) -> HTTPResponse:
    return HTTPResponse(status=204)


async def nothing_(_: Request) -> None:
    pass


async def dict_(_: Request) -> dict[str, str]:
    return {}


async def raises_(_: Request) -> None:
    raise ValueError


async def teapot_(_: Request) -> None:
    raise SanicException("teapot", status_code=418)


HANDLERS: dict[str, Any] = {
    "/text": text_,
    "/json": json_,
    "/argument/<name>": argument_,
    "/echo": echo_,
    "/sync": sync_,
    "/streamed": streamed_,
    "/file": file_,
    "/empty": empty_,
    "/nothing": nothing_,
    "/dict": dict_,
    "/raises": raises_,
    "/teapot": teapot_,
}


def add_routes(app: App) -> None:
    """Add handlers that return everything that Sanic allows, and more."""
    for path, handler in HANDLERS.items():
        app.add_route(handler, path, methods=("GET", "HEAD"))


@pytest.fixture(scope="module")
def plain(config: Config) -> Iterator[Service]:
    """Run an app whose requests are handled by the service's own code."""
    app = create_app(config=config, name="plain")
    add_routes(app)
    with Service(config, app) as service:
        assert service("GET", "/tests/hello").status_code == 200
        assert is_plain(app)
        yield service


@pytest.fixture(scope="module")
def by_sanic(plain: Service, config: Config) -> Iterator[Service]:
    """Run the same app with a class of its own for requests, so that Sanic handles them."""
    assert is_plain(plain.app)
    app = create_app(config=config, name="by_sanic")
    add_routes(app)
    app.request_class = type("OwnRequest", (sanic.Request,), {})
    with Service(config, app) as service:
        assert service("GET", "/tests/hello").status_code == 200
        assert not is_plain(app)
        yield service


def answer(service: Service, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
    """Return what a client sees, without what differs between two requests."""
    response: httpx.Response = service.run(service._http.request(method, path, headers={"X-Request-ID": "1"}))
    return response.status_code, response.content, dict(response.headers)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("what", PATHS)
def test_a_request_is_answered_as_by_sanic(plain: Service, by_sanic: Service, what: str, method: str) -> None:
    path = PATHS[what]
    assert answer(plain, method, path) == answer(by_sanic, method, path)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_read_as_by_sanic(plain: Service, by_sanic: Service, head: str) -> None:
    """With a second request on the same connection, if it persists."""

    async def exchange(service: Service) -> bytes:
        reader, writer = await asyncio.open_connection(*service.address)
        second = "GET /text HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 2\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}\r\nHost: localhost\r\nX-Request-ID: 1\r\n\r\n{second}".encode("latin-1"))
        try:
            return await reader.read()
        finally:
            writer.close()

    ours = plain.run(exchange(plain))
    assert ours.startswith(b"HTTP/1.1 200 ")
    assert ours == by_sanic.run(exchange(by_sanic))


def test_requests_of_an_app_with_signals_are_left_to_sanic(config: Config) -> None:
    """It is not run, since Sanic would send the requests of all other apps of this process to its signals."""
    app = create_app(config=config, name="signals")
    app.signal("http.lifecycle.request")(AsyncMock())
    assert not is_plain(app)


def test_middleware_of_an_app_is_called(config: Config) -> None:
    app = create_app(config=config, name="middleware")
    add_routes(app)

    @app.on_request
    async def before(request: Request) -> None:
        request.ctx.before = True

    @app.on_response  # type: ignore[untyped-decorator]
    async def after(request: Request, response: HTTPResponse) -> None:
        response.headers["x-middleware"] = str(request.ctx.before)

    with Service(config, app) as service:
        for path in ("/text", "/unknown"):
            assert answer(service, "GET", path)[2]["x-middleware"] == "True"


def test_observations_that_are_written_together_count_as_each_by_itself() -> None:
    bounds = (1 / 1024, 1 / 64, 1 / 8)  # with powers of two, sums are the same in any order
    together, singly = CollectorRegistry(), CollectorRegistry()
    histograms = [Histogram("seconds", "Seconds.", registry=one, buckets=bounds) for one in (together, singly)]
    seen = [1 / 2048, 1 / 1024, 3 / 2048, 1 / 16, 1 / 8, 7.0, 1 / 512]

    async def observe() -> None:
        batch = Batch(histograms[0], bounds)
        for seconds in seen:
            batch.observe(seconds)
        await asyncio.sleep(0)
        batch.observe(0.5)
        await asyncio.sleep(0)

    asyncio.run(observe())
    for seconds in (*seen, 0.5):
        histograms[1].observe(seconds)
    lines = [generate_latest(one).decode().splitlines() for one in (together, singly)]
    assert [line for line in lines[0] if "_created" not in line] == [
        line for line in lines[1] if "_created" not in line
    ]


def test_a_service_that_stops_closes_its_connections(plain: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(plain, "GET", "/text")[2]["connection"] == "keep-alive"
    monkeypatch.setitem(plain.app.config, "KEEP_ALIVE", False)
    assert answer(plain, "GET", "/text")[2]["connection"] == "close"
