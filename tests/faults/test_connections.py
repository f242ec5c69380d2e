"""Tests with idle, slow and oversized requests: other clients are not delayed, and memory does not grow."""

import json
import re
import resource
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from config import Config
from tests.faults.conftest import Server
from tests.faults.test_processes import Note, serving
from tests.processes import TIMEOUT_SECONDS
from tests.test_connections import script_of

IDLE_CONNECTIONS = 5000
SLOW_CONNECTIONS = 200
ARRIVAL_SECONDS = 3
SILENCE_SECONDS = 2  # REQUEST_TIMEOUT here; the server checks the time limits every second
UNREADING_CONNECTIONS = 500
UNREAD_SECONDS = 8  # RESPONSE_TIMEOUT here; a body that stops arriving is noticed before
SMALLEST_BUFFER = 4096
LATE_SECONDS = ARRIVAL_SECONDS + 2 + 1  # two checks, and a margin for a busy machine
SAMPLES = 300
ROUNDS = 5
BODY_LIMIT = Config.model_fields["REQUEST_MAX_SIZE"].default
HELLO = b"GET /tests/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = "POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEADER_DRIP = b"GET /tests/hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY_DRIP = f'{POST}Content-Length: 1000\r\n\r\n{{"username": "'.encode()
WEBSOCKET_DRIP = BODY_DRIP.replace(b"\r\n", b"\r\nUpgrade: websocket\r\n", 1)


@pytest.fixture(scope="module")
def server(mongo_uri: str) -> Iterator[Server]:
    """Run two workers with short time limits."""
    with (
        more_open_files(),
        serving(
            mongo_uri,
            REQUEST_TIMEOUT=str(SILENCE_SECONDS),
            KEEP_ALIVE_TIMEOUT="60",
            RESPONSE_TIMEOUT=str(UNREAD_SECONDS),
            REQUEST_ARRIVAL_SECONDS=str(ARRIVAL_SECONDS),
        ) as server,
    ):
        yield server
        assert "Traceback" not in server.command.output, server.command.output


@contextmanager
def more_open_files() -> Iterator[None]:
    """Raise the limit of open files, and so of connections, for this process and its children."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(server: Server, *, received: int | None = None) -> socket.socket:
    """Open a connection, which receives so many bytes before they are read."""
    connection = socket.socket()
    connection.settimeout(TIMEOUT_SECONDS)
    if received:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    connection.connect(("127.0.0.1", server.port))
    return connection


def send(server: Server, request: bytes) -> bytes:
    """Send this on a new connection and return everything until the server closes it."""
    with connect(server) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # the server rejected the request before its end
            connection.sendall(request)
        return read(connection)


def read(connection: socket.socket) -> bytes:
    """Return everything until the server closes the connection."""
    response = b""
    with suppress(ConnectionResetError):  # because of unread data; the response arrived before
        while piece := connection.recv(65536):
            response += piece
    return response


def status(response: bytes) -> int:
    """Return the status of a response."""
    return int(response.split(b" ", 2)[1])


def p99(server: Server) -> float:
    """Return the 99th percentile of the response times in seconds."""
    durations = []
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for _ in range(SAMPLES):
            began = time.monotonic()
            assert client.get("/tests/hello").status_code == 200
            durations.append(time.monotonic() - began)
    return statistics.quantiles(durations, n=100)[-1]


def typical_p99(server: Server) -> float:
    """Return the median of several 99th percentiles, because a pause of the machine can dominate a single one."""
    return statistics.median(p99(server) for _ in range(ROUNDS))


def megabytes(server: Server) -> int:
    """Return the resident memory of both workers in megabytes."""
    processes = [one.pid for one in server.workers]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in processes) // 1_000_000


def test_thousands_of_idle_connections_do_not_delay_other_requests(mongo_uri: str, note: Note) -> None:
    """With the default timeouts of the service."""
    with more_open_files(), serving(mongo_uri) as server, ExitStack() as opened:
        before, memory = typical_p99(server), megabytes(server)
        began = time.monotonic()
        for number in range(IDLE_CONNECTIONS):
            connection = opened.enter_context(connect(server))
            if number % 2:
                connection.sendall(HELLO)  # an idle persistent connection after a request
        seconds, during, memory_during = time.monotonic() - began, typical_p99(server), megabytes(server)
        note(
            f"{IDLE_CONNECTIONS} opened in {seconds:.1f} s; p99 of hello {1000 * before:.2f} ms before, "
            f"{1000 * during:.2f} ms with them, {during / before:.2f} times; memory {memory} MB, {memory_during} MB"
        )
    assert during < 2 * before + 0.002, "seconds; 0.002 is a margin for a busy machine"
    assert memory_during - memory < IDLE_CONNECTIONS * 0.03, "30 kB for each connection"


@pytest.mark.parametrize("beginning", [HEADER_DRIP, BODY_DRIP], ids=["header", "body"])
def test_slow_requests_are_closed_without_delaying_others(server: Server, note: Note, beginning: bytes) -> None:
    """Sanic itself would wait as long as the client sends a byte from time to time."""
    before = typical_p99(server)
    with ExitStack() as opened:
        slow = [opened.enter_context(connect(server)) for _ in range(SLOW_CONNECTIONS)]
        began, during, ends = time.monotonic(), list[float](), []
        for connection in slow:
            connection.sendall(beginning)
        while slow and time.monotonic() - began < 3 * LATE_SECONDS:
            during.append(p99(server))
            still_open = [connection for connection in slow if drip(connection)]
            ends += [time.monotonic() - began] * (len(slow) - len(still_open))
            slow = still_open
            time.sleep(0.3)
    note(
        f"{SLOW_CONNECTIONS} closed after {min(ends):.1f} to {max(ends):.1f} s of {ARRIVAL_SECONDS}; "
        f"p99 of hello {1000 * before:.2f} ms before, {1000 * statistics.median(during):.2f} ms with them, "
        f"{statistics.median(during) / before:.2f} times"
    )
    assert not slow
    assert min(ends) > ARRIVAL_SECONDS - 0.5
    assert max(ends) < LATE_SECONDS + 1
    assert statistics.median(during) < 2 * before + 0.002


def drip(connection: socket.socket) -> bool:
    """Send another byte and return whether the connection is open; before closing it, the server sends 408."""
    connection.setblocking(False)
    try:
        response = connection.recv(65536)
    except BlockingIOError:
        connection.sendall(b"x")
        return True
    assert status(response) == 408, response
    return False


UNREAD: dict[str, Callable[[Server], bytes]] = {
    "the largest file": lambda server: largest_file(server),
    "the largest file again and again": lambda server: largest_file(server) * 20,
    "small responses again and again": lambda _: HELLO * 2000,
}


@pytest.mark.parametrize("what", UNREAD)
def test_clients_that_do_not_read_use_little_memory_and_are_closed(server: Server, note: Note, what: str) -> None:
    """Slow read: Sanic would keep a copy of each response, and wait as long as the client sends a byte."""
    requests = UNREAD[what](server)
    before, kernel_before = megabytes(server), kernel_megabytes()
    began, ends = time.monotonic(), list[float]()
    with ExitStack() as opened:
        slow = [opened.enter_context(connect(server, received=SMALLEST_BUFFER)) for _ in range(UNREADING_CONNECTIONS)]
        for connection in slow:
            connection.setblocking(False)
            connection.send(requests)
        peak, kernel_peak = megabytes(server), kernel_megabytes()
        while slow and time.monotonic() - began < TIMEOUT_SECONDS:
            still_open = [connection for connection in slow if is_open(connection)]
            ends += [time.monotonic() - began] * (len(slow) - len(still_open))
            slow, peak, kernel_peak = still_open, max(peak, megabytes(server)), max(kernel_peak, kernel_megabytes())
            time.sleep(0.3)
    assert not slow
    note(
        f"{UNREADING_CONNECTIONS} closed after {min(ends):.1f} to {max(ends):.1f} s of {UNREAD_SECONDS}; "
        f"{before} MB before, {peak} MB at most; in the kernel {kernel_before} MB and {kernel_peak} MB"
    )
    assert peak - before < UNREADING_CONNECTIONS * 0.2, "200 kB for each connection"
    assert kernel_peak - kernel_before < UNREADING_CONNECTIONS * 0.2, "200 kB for each connection"


def test_a_client_that_reads_slowly_receives_the_whole_response(server: Server) -> None:
    """Although it takes longer than the limit, which applies to what waits for the client."""
    request, response, began = largest_file(server), b"", time.monotonic()
    with connect(server, received=SMALLEST_BUFFER) as connection:
        connection.sendall(request[:-2] + b"Connection: close\r\n\r\n")
        while piece := connection.recv(SMALLEST_BUFFER):
            response += piece
            time.sleep(0.04)
    head, _, file = response.partition(b"\r\n\r\n")
    assert f"content-length: {len(file)}".encode() in head.split(b"\r\n")
    assert time.monotonic() - began > 2 * UNREAD_SECONDS


def kernel_megabytes() -> int:
    """Return what the kernel keeps of all TCP connections of the machine, in megabytes."""
    pages = re.search(r"TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text())
    assert pages
    return int(pages[1]) * resource.getpagesize() // 1_000_000


def largest_file(server: Server) -> bytes:
    """Return a request for the largest static file."""
    path = script_of(httpx.get(f"{server.url}/docs", trust_env=False).text)
    for _ in range(10):  # each worker reads the file once, and keeps it
        assert len(httpx.get(f"{server.url}{path}", trust_env=False).content) > 1_000_000
    return HELLO.replace(b"/tests/hello", path.encode())


def is_open(connection: socket.socket) -> bool:
    """Send another byte, read nothing, and return whether the connection is open."""
    with suppress(BlockingIOError):
        try:
            connection.send(b"x")
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [(b"GET /tests/hello HT", 408), (BODY_DRIP, 408), (WEBSOCKET_DRIP, 408)],
    ids=["header", "body", "body of a request for a websocket"],
)
def test_requests_that_stop_arriving_are_closed_with_408(server: Server, beginning: bytes, expected: int) -> None:
    began = time.monotonic()
    assert status(send(server, beginning)) == expected
    assert time.monotonic() - began < LATE_SECONDS


def test_the_request_time_limit_does_not_close_persistent_connections(server: Server) -> None:
    """The limit applies to each request, not to the connection."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        connections = set()
        for _ in range(LATE_SECONDS * 2):
            response = client.get("/tests/hello")
            assert response.status_code == 200
            connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(0.5)
    assert len(connections) == 1


def body(text: bytes) -> bytes:
    """Return a login request with this body."""
    return f"{POST}Connection: close\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


def endless_chunks() -> bytes:
    """Return a request with a chunked body that has no last chunk."""
    return f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + b"2710\r\n" + (b"x" * 10_000 + b"\r\n2710\r\n") * 200


OVERSIZED: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "a body above the limit": (lambda: body(b"x" * (BODY_LIMIT + 1)), {413}),
    "a header above the limit": (lambda: HELLO[:-2] + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", {413}),
    "thousands of headers": (lambda: HELLO[:-2] + b"X: y\r\n" * 4000 + b"\r\n", {413}),
    "100,000 keys": (
        lambda: body(json.dumps({f"{n:x}": 0 for n in range(100_000)}, separators=(",", ":")).encode()),
        {400, 413, 422},
    ),
    "nesting 2,000 deep": (lambda: body(b'{"username":' * 2000 + b"0" + b"}" * 2000), {400, 422}),
    "arrays 30,000 deep": (lambda: body(b"[" * 30_000), {400}),
    "chunks without end": (endless_chunks, {413}),
}


@pytest.mark.parametrize("what", OVERSIZED)
@pytest.mark.quick
def test_oversized_requests_are_rejected_and_do_not_increase_memory(server: Server, note: Note, what: str) -> None:
    """With a short response, also for repeated requests."""
    make, expected = OVERSIZED[what]
    request = make()
    for _ in range(10):  # a process keeps memory that it has used once
        send(server, request)
    before, began = megabytes(server), time.monotonic()
    responses = [send(server, request) for _ in range(50)]
    seconds, after = (time.monotonic() - began) / len(responses), megabytes(server)
    note(
        f"{status(responses[0])} after {1000 * seconds:.1f} ms, {len(responses[0])} bytes; "
        f"{before} MB before, {after} MB after"
    )
    assert {status(response) for response in responses} <= expected
    assert max(map(len, responses)) < 10_000
    assert after - before < 20


@pytest.mark.quick
def test_a_thousand_pipelined_requests_are_answered_in_order(server: Server) -> None:
    paths = [f"/nowhere/{number}" if number % 10 == 9 else "/tests/hello" for number in range(1000)]
    requests = [HELLO.replace(b"/tests/hello", path.encode()) for path in paths]
    requests[-1] = requests[-1][:-2] + b"Connection: close\r\n\r\n"
    responses = send(server, b"".join(requests)).split(b"HTTP/1.1 ")[1:]
    assert [int(response[:3]) for response in responses] == [200 if path == "/tests/hello" else 404 for path in paths]


def test_both_workers_are_ready_afterwards(server: Server) -> None:
    """Run as the last test of the module."""
    server.wait_until_ready()
    assert "is replaced" not in server.command.output
