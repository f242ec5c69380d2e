"""Thousands of connections, clients that dawdle or send too much: the others notice nothing, and memory stays."""

import json
import resource
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import Server
from tests.faults.test_processes import Note, serving
from tests.processes import until

IDLE = 5000
SLOW = 200
ARRIVAL_SECONDS = 3
SILENCE_SECONDS = 2  # the other timeouts here, which are looked after every second
LATE_SECONDS = ARRIVAL_SECONDS + 2 + 1  # two looks, and something for a busy machine
SAMPLES = 300
ROUNDS = 5
BODY_LIMIT = 1_000_000
HELLO = b"GET /tests/hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = "POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEADER_DRIP = b"GET /tests/hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY_DRIP = f'{POST}Content-Length: 1000\r\n\r\n{{"username": "'.encode()


@pytest.fixture(scope="module")
def server(mongo_uri: str) -> Iterator[Server]:
    """Give two workers that are strict about time."""
    with (
        more_files(),
        serving(
            mongo_uri,
            REQUEST_TIMEOUT=str(SILENCE_SECONDS),
            KEEP_ALIVE_TIMEOUT="60",
            REQUEST_ARRIVAL_SECONDS=str(ARRIVAL_SECONDS),
        ) as server,
    ):
        yield server
        assert "Traceback" not in server.command.output, server.command.output


@contextmanager
def more_files() -> Iterator[None]:
    """Let this process, and those that it starts, have as many connections as they may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(server: Server) -> socket.socket:
    """Open a connection."""
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20)


def send(server: Server, request: bytes) -> bytes:
    """Send this on a connection of its own and return all that comes back until the server hangs up."""
    with connect(server) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has been refused before its end
            connection.sendall(request)
        return read(connection)


def read(connection: socket.socket) -> bytes:
    """Return all that comes until the server hangs up."""
    answer = b""
    with suppress(ConnectionResetError):  # of what it did not read; its answer has come before
        while piece := connection.recv(65536):
            answer += piece
    return answer


def status(answer: bytes) -> int:
    """Return the status of an answer."""
    return int(answer.split(b" ", 2)[1])


def p99(server: Server) -> float:
    """Return within how many seconds 99 % of requests are answered now."""
    took = []
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for _ in range(SAMPLES):
            began = time.monotonic()
            assert client.get("/tests/hello").status_code == 200
            took.append(time.monotonic() - began)
    return statistics.quantiles(took, n=100)[-1]


def typical_p99(server: Server) -> float:
    """Return the median of several, since a pause of the machine makes any one of them."""
    return statistics.median(p99(server) for _ in range(ROUNDS))


def megabytes(server: Server) -> int:
    """Return what both workers hold in memory."""
    processes = [one.pid for one in server.workers]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in processes) // 1_000_000


def test_thousands_of_idle_connections_disturb_nobody(mongo_uri: str, note: Note) -> None:
    """With the timeouts that the service comes with."""
    with more_files(), serving(mongo_uri) as server, ExitStack() as open_ones:
        before, memory = typical_p99(server), megabytes(server)
        began = time.monotonic()
        for number in range(IDLE):
            connection = open_ones.enter_context(connect(server))
            if number % 2:
                connection.sendall(HELLO)  # one that has asked something, and keeps its connection
        opened, meanwhile, more = time.monotonic() - began, typical_p99(server), megabytes(server)
        note(
            f"{IDLE} opened in {opened:.1f} s; p99 of hello {1000 * before:.2f} ms before, {1000 * meanwhile:.2f} ms "
            f"with them, {meanwhile / before:.2f} times; memory {memory} MB, {more} MB"
        )
    assert meanwhile < 2 * before + 0.002, "seconds; the rest is for a busy machine"
    assert more - memory < IDLE * 0.03, "30 kB for each"


@pytest.mark.parametrize("beginning", [HEADER_DRIP, BODY_DRIP], ids=["header", "body"])
def test_whoever_drips_a_request_is_cut_off_and_disturbs_nobody(server: Server, note: Note, beginning: bytes) -> None:
    """Sanic alone would wait for as long as a byte comes now and then."""
    before = typical_p99(server)
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(connect(server)) for _ in range(SLOW)]
        began, meanwhile, ends = time.monotonic(), list[float](), []
        for connection in slow:
            connection.sendall(beginning)
        while slow and time.monotonic() - began < 3 * LATE_SECONDS:
            meanwhile.append(p99(server))
            still = [connection for connection in slow if drip(connection)]
            ends += [time.monotonic() - began] * (len(slow) - len(still))
            slow = still
            time.sleep(0.3)
    note(
        f"{SLOW} cut off after {min(ends):.1f} to {max(ends):.1f} s of {ARRIVAL_SECONDS}; "
        f"p99 of hello {1000 * before:.2f} ms before, {1000 * statistics.median(meanwhile):.2f} ms with them, "
        f"{statistics.median(meanwhile) / before:.2f} times"
    )
    assert not slow
    assert min(ends) > ARRIVAL_SECONDS - 0.5
    assert max(ends) < LATE_SECONDS + 1
    assert statistics.median(meanwhile) < 2 * before + 0.002


def drip(connection: socket.socket) -> bool:
    """Send one byte more, and tell whether the server is still patient; its last word is 408."""
    connection.setblocking(False)
    try:
        answer = connection.recv(65536)
    except BlockingIOError:
        connection.sendall(b"x")
        return True
    assert status(answer) == 408, answer
    return False


@pytest.mark.parametrize(
    ("beginning", "refusal"),
    [(b"GET /tests/hello HT", 408), (BODY_DRIP, 408)],
    ids=["header", "body"],
)
def test_whoever_falls_silent_is_cut_off(server: Server, beginning: bytes, refusal: int) -> None:
    began = time.monotonic()
    assert status(send(server, beginning)) == refusal
    assert time.monotonic() - began < LATE_SECONDS


def test_whoever_is_quick_is_not_cut_off_on_a_connection_that_lasts(server: Server) -> None:
    """The limit is of each request, and not of the connection."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        connections = set()
        for _ in range(LATE_SECONDS * 2):
            response = client.get("/tests/hello")
            assert response.status_code == 200
            connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(0.5)
    assert len(connections) == 1


def body(text: bytes) -> bytes:
    """Return a request to log in with this body."""
    return f"{POST}Connection: close\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


def endless_chunks() -> bytes:
    """Return the beginning of a body that says of each piece that there is more."""
    return f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode() + b"2710\r\n" + (b"x" * 10_000 + b"\r\n2710\r\n") * 200


TOO_MUCH: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "a body above the limit": (lambda: body(b"x" * (BODY_LIMIT + 1)), {413}),
    "a header above the limit": (lambda: HELLO[:-2] + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", {413}),
    "thousands of headers": (lambda: HELLO[:-2] + b"X: y\r\n" * 4000 + b"\r\n", {413}),
    "100,000 keys": (
        lambda: body(json.dumps({f"{n:x}": 0 for n in range(100_000)}, separators=(",", ":")).encode()),
        {400, 413, 422},
    ),
    "nesting 10,000 deep": (lambda: body(b'{"username":' * 10_000 + b"0" + b"}" * 10_000), {400, 422}),
    "arrays 400,000 deep": (lambda: body(b"[" * 400_000), {400}),
    "chunks without end": (endless_chunks, {413}),
}


@pytest.mark.parametrize("what", TOO_MUCH)
@pytest.mark.quick
def test_too_much_is_refused_and_leaves_no_trace_in_memory(server: Server, note: Note, what: str) -> None:
    """In a short answer, again and again."""
    make, refusals = TOO_MUCH[what]
    request = make()
    for _ in range(10):  # memory that is used once stays with the process
        send(server, request)
    before, began = megabytes(server), time.monotonic()
    answers = [send(server, request) for _ in range(50)]
    took, after = (time.monotonic() - began) / len(answers), megabytes(server)
    note(
        f"{status(answers[0])} after {1000 * took:.1f} ms, {len(answers[0])} bytes; "
        f"{before} MB before, {after} MB after"
    )
    assert {status(answer) for answer in answers} <= refusals
    assert max(map(len, answers)) < 10_000
    assert after - before < 20


@pytest.mark.quick
def test_a_thousand_requests_at_once_are_answered_in_their_order(server: Server) -> None:
    paths = [f"/nowhere/{number}" if number % 10 == 9 else "/tests/hello" for number in range(1000)]
    requests = [HELLO.replace(b"/tests/hello", path.encode()) for path in paths]
    requests[-1] = requests[-1][:-2] + b"Connection: close\r\n\r\n"
    answers = send(server, b"".join(requests)).split(b"HTTP/1.1 ")[1:]
    assert [int(answer[:3]) for answer in answers] == [200 if path == "/tests/hello" else 404 for path in paths]


def test_afterwards_both_workers_serve(server: Server) -> None:
    """The module's last test."""
    until(server.ready, "readiness")
    assert "is replaced" not in server.command.output
