"""A worker that has no connection left, and the limit of open files."""

import asyncio
import errno
import os
import resource
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx
import pytest
from prometheus_client import REGISTRY

from app.http.codes import Code
from app.server import connections, descriptors
from config import Config
from tests.conftest import Service
from tests.processes import TIMEOUT_SECONDS, eventually

LIMIT = 16
SPARE = 2
HOUR = 3600.0
LINE = "connections are open: 1 limited to one request"
HEADER_PART = b"GET /tests/hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY_PART = b"POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"


@dataclass
class Client:
    """A client with one connection."""

    reader: StreamReader
    writer: StreamWriter

    async def get(self, path: str) -> httpx.Response:
        """Send a GET request."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await self.receive()

    async def receive(self) -> httpx.Response:
        """Receive a response."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return httpx.Response(int(head[0].split()[1]), headers=headers, content=body)

    async def is_closed(self) -> bool:
        """Wait until the server closes the connection, and return True."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


class Full:
    """A service with a small limit of connections; its methods run on its event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.clients: list[Client] = []

    async def connect(self, sent: bytes = b"") -> Client:
        """Open a connection and send the beginning of a request."""
        client = Client(*await asyncio.open_connection(*self.service.address))
        client.writer.write(sent)
        self.clients.append(client)
        return client

    async def fill(self, sent: bytes | None = None) -> list[Client]:
        """Open all connections that the service keeps open: persistent ones, or with the beginning of a request."""
        opened = []
        for _ in range(LIMIT):
            client = await self.connect(sent or b"")
            if sent is None:
                assert await connection_header(client) == "keep-alive"
            opened.append(client)
        await eventually(lambda: len(self.service.app.ctx.connections._open) == LIMIT)
        return opened

    async def leave(self) -> None:
        """Close all connections, and wait until the service has noticed."""
        for client in self.clients:
            client.writer.close()
        self.clients.clear()
        await eventually(lambda: not self.service.app.ctx.connections._open)


def value(metric: str, **labels: str) -> float:
    """Return the value of a metric."""
    return REGISTRY.get_sample_value(metric, labels) or 0


async def connection_header(client: Client) -> str:
    """Send a request and return whether the connection persists."""
    response = await client.get("/tests/hello")
    assert response.status_code == 200
    return response.headers["connection"]


@pytest.fixture(scope="module")
def small(config: Config) -> Iterator[Service]:
    """Run a service with a small limit."""
    with Service(config.model_copy(update={"CONNECTIONS_PER_WORKER": LIMIT})) as service:
        yield service


@pytest.fixture
def full(small: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Full]:
    """Return a service of which no connection is open, and that takes none for idle or silent."""
    patience(monkeypatch)
    small.app.ctx.connections = connections.Connections(LIMIT)
    full = Full(small)
    yield full
    small.run(full.leave())


def patience(
    monkeypatch: pytest.MonkeyPatch, *, idle: float = HOUR, silent: float = HOUR, unread: float = HOUR
) -> None:
    """Set after how many seconds connections count as idle or silent, or a response as unread."""
    monkeypatch.setattr(connections, "IDLE_SECONDS", idle)
    monkeypatch.setattr(connections, "SILENT_SECONDS", silent)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", unread)


def test_a_full_worker_answers_one_request_of_each_new_connection(full: Full) -> None:
    async def story() -> None:
        persistent = await full.fill()
        for _ in range(5 * SPARE):
            client = await full.connect()
            assert await connection_header(client) == "close"
            assert await client.is_closed()
        assert {await connection_header(client) for client in persistent} == {"keep-alive"}

    full.service.run(story())


def test_a_full_worker_is_not_ready_until_connections_are_closed(full: Full) -> None:
    async def ready() -> tuple[int, str | None]:
        response = await (await full.connect()).get("/health/ready")
        return response.status_code, response.json().get("code")

    async def story() -> None:
        (first, *_) = await full.fill()
        assert await ready() == (503, Code.CONNECTIONS_EXHAUSTED)
        assert (await first.get("/health/ready")).status_code == 503, "also on an older connection"
        assert (await (await full.connect()).get("/health/live")).status_code == 200
        await full.leave()
        assert await ready() == (200, None)

    full.service.run(story())


def test_an_idle_connection_gives_way_to_a_new_one(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        first, second, third, *others = await full.fill()
        await asyncio.sleep(0.2)
        patience(monkeypatch, idle=0.1)
        for client in (first, third, *others):
            await connection_header(client)
        assert await connection_header(await full.connect()) == "keep-alive"
        assert await second.is_closed()
        assert await connection_header(first) == "keep-alive"

    full.service.run(story())


@pytest.mark.parametrize(
    ("sent", "response"), [(b"", None), (HEADER_PART, 408), (BODY_PART, 408)], ids=["nothing", "header", "body"]
)
def test_a_silent_client_gives_way_to_a_new_one(
    full: Full, monkeypatch: pytest.MonkeyPatch, sent: bytes, response: int | None
) -> None:
    """Slowloris cannot occupy all connections: requests that do not arrive are closed before the time limits end."""

    async def story() -> None:
        (first, *_) = await full.fill(sent)
        await asyncio.sleep(0.2)
        patience(monkeypatch, silent=0.1)
        assert await connection_header(await full.connect()) == "keep-alive"
        if response:
            assert (await first.receive()).status_code == response
        assert await first.is_closed()

    full.service.run(story())


def test_a_response_that_is_being_sent_is_not_cut_off(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its connection is the one that has been idle for the longest time."""

    async def story() -> None:
        slow = await unread(full)
        idle = [await full.connect() for _ in range(LIMIT - 1)]
        for client in idle:
            await connection_header(client)
        patience(monkeypatch, idle=-1)
        assert await connection_header(await full.connect()) == "keep-alive"
        assert await idle[0].is_closed()
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        response = await slow.receive()
        assert len(response.content) == int(response.headers["content-length"]) > 1_000_000
        slow.writer.close()

    full.service.run(story())


def test_a_client_that_does_not_read_gives_way_to_a_new_one(full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow read cannot occupy all connections."""

    async def story() -> None:
        slow = await unread(full)
        slow.writer.write(b"G")
        others = [await full.connect() for _ in range(LIMIT - 1)]
        for client in others:
            await connection_header(client)
        patience(monkeypatch, unread=0)
        assert await connection_header(await full.connect()) == "keep-alive"
        assert {await connection_header(client) for client in others} == {"keep-alive"}
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await slow.receive()
        slow.writer.close()

    full.service.run(story())


async def unread(full: Full) -> Client:
    """Return a client that has asked for a large file and does not read it."""
    path = script_of((await (await full.connect()).get("/docs")).text)
    await full.leave()
    waiting = socket.socket()
    waiting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    waiting.connect(full.service.address)
    slow = Client(*await asyncio.open_connection(sock=waiting, limit=4096))
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (transport,) = await transports(full, 1)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    slow.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await eventually(transport.get_write_buffer_size)
    return slow


def script_of(page: str) -> str:
    """Return the path of the first script of the documentation page, which is the largest static file."""
    return urljoin("/docs", page.partition('<script src="')[2].partition('"')[0])


async def transports(full: Full, number: int) -> list[asyncio.Transport]:
    """Wait until so many connections are open, and return their transports."""
    connections = full.service.app.ctx.connections._open
    await eventually(lambda: len(connections) == number and all(one.transport for one in connections))
    return [one.transport for one in connections if one.transport]


def test_a_connection_without_room_is_refused_with_503(full: Full, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, and logged: one line at once, and one for everything within the next LOG_SECONDS."""

    async def story() -> None:
        await full.fill()
        for _ in range(SPARE):
            await full.connect(HEADER_PART)
        for _ in range(20):
            client = await full.connect()
            response = await client.receive()
            assert (response.status_code, response.json()["code"]) == (503, Code.CONNECTIONS_EXHAUSTED)
            assert (response.headers["connection"], response.headers["retry-after"]) == ("close", "2")
            assert await client.is_closed()
        assert [line for line in caplog.messages if "connections are open" in line] == [f"16 of at most 16 {LINE}"]
        full.service.app.ctx.connections._log()
        assert caplog.messages[-1] == f"18 of at most 16 {LINE}, 20 refused"
        await full.leave()

    before = value("connections_exhausted_total", event="refused")
    full.service.run(story())
    assert value("connections_exhausted_total", event="refused") == before + 20


@pytest.mark.parametrize("sent", [b"", HEADER_PART], ids=["nothing", "header"])
def test_a_spare_connection_is_closed_if_its_request_does_not_arrive_soon(
    full: Full, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """So that the next health check finds one."""

    async def story() -> None:
        persistent = await full.fill()
        monkeypatch.setattr(connections, "SILENT_SECONDS", 0.2)
        spare = [await full.connect(sent) for _ in range(SPARE)]
        for client in spare:
            if sent:
                assert (await client.receive()).status_code == 408
            assert await client.is_closed()
        assert {await connection_header(client) for client in persistent} == {"keep-alive"}

    full.service.run(story())


def test_a_spare_connection_is_closed_if_its_request_arrives_slowly(
    full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        await full.fill()
        monkeypatch.setattr(connections, "SILENT_SECONDS", 0.5)
        monkeypatch.setattr(connections, "SPARE_SECONDS", 1)
        drip = await full.connect(HEADER_PART)
        response = asyncio.create_task(drip.receive())
        while not response.done():
            drip.writer.write(b"x")
            await asyncio.sleep(0.1)
        assert (await response).status_code == 408

    full.service.run(story())


def test_the_gauges_have_the_open_connections_and_those_left(full: Full) -> None:
    async def story() -> None:
        for _ in range(LIMIT - 4):
            await connection_header(await full.connect())
        full.service.app.ctx.connections.measure()

    full.service.run(story())
    assert value("connections_open") == LIMIT - 4
    assert value("connections_left") == 4


def test_a_worker_that_can_open_no_file_is_not_ready(
    full: Full, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Files other than connections can use up the limit, and other processes that of the machine (EMFILE, ENFILE)."""

    def fail(*_: object) -> int:
        raise OSError(errno.ENFILE, "Too many open files in system")

    async def story() -> int:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            statuses = {(await (await full.connect()).get("/health/ready")).status_code for _ in range(3)}
            full.service.app.ctx.connections.measure()
            assert value("connections_left") == 0  # now, since the service measures again
        assert statuses == {503}
        return (await (await full.connect()).get("/health/ready")).status_code

    assert full.service.run(story()) == 200
    assert len([line for line in caplog.messages if "failed attempts to open a file" in line]) == 1


# The limit of open files


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(resource.RLIM_INFINITY, 4096), (1_048_576, 4096), (4288, 4096), (1024, 832), (256, 128), (128, 64)],
)
def test_the_limit_of_open_files_bounds_the_connections(
    monkeypatch: pytest.MonkeyPatch, limit: int, expected: int
) -> None:
    """Files are left for the database, health checks and logs, at most half of them."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert descriptors.capacity(4096) == expected


@pytest.fixture
def limited() -> Iterator[tuple[int, int]]:
    """Lower the soft limit of this process for the test, and return the original limits."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_limit(
    limited: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sanic.root")
    descriptors.prepare(16)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limited[1]
    assert f"raised the limit of open files from 512 to {limited[1]}" in caplog.messages
    caplog.clear()
    descriptors.prepare(16)
    assert not caplog.messages, "nothing to raise"


def test_an_infinite_hard_limit_is_replaced_where_the_system_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS."""
    tried = []

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        tried.append(limits)
        if limits[0] == resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert descriptors.raise_limit() == (256, 10_240)
    assert tried == [(resource.RLIM_INFINITY,) * 2, (10_240, resource.RLIM_INFINITY)]


def test_a_low_limit_of_open_files_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    descriptors.prepare(4096)
    (line,) = caplog.messages
    assert "1024" in line
    assert "832 connections per worker" in line
    assert "ulimit -Hn" in line


def test_a_limit_of_open_files_with_which_nothing_works_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(SystemExit, match="limit of open files is 100, and at least 128 are needed: raise it with"):
        descriptors.prepare(4096)
