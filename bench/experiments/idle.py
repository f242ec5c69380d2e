"""The cost of many idle persistent connections to one worker: requests per second, and bytes."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.server.descriptors import capacity, raise_limit
from bench import load, tokens
from bench.bench import Bench, alternate
from bench.machine import BenchFailed
from bench.progress import Plan
from bench.results import Requests, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup

PER_ADDRESS = 1000  # connections from one loopback address; each address has its own ports
FREE = 1000  # connections that the worker accepts besides the idle ones, and files that this process opens besides
NONE, MANY = "none", "many"
READ_SECONDS, READ_BYTES = 10, 4096
SETTLE_SECONDS = 1  # until the worker has cleaned up closed connections
REQUEST = b"GET /tests/hello HTTP/1.1\r\nHost: bench\r\n\r\n"
SECONDS_PER_CONNECTION = 0.0006  # roughly, to open it and to check it


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of rounds."""
    seconds = 2 * scale.pair_burst_seconds + SECONDS_PER_CONNECTION * scale.idle_connections
    return Plan(scale.pair_rounds, seconds + 2 * SETTLE_SECONDS)


def run(bench: Bench) -> None:
    """Measure one worker in turn without and with idle connections, which are opened in each round."""
    number = bench.scale.idle_connections
    raise_limit()
    if capacity(number + FREE) < number + FREE:
        what = f"{number:,} idle connections: not measured, because the limit of open files is too low"
        bench.results.rows.append(Row(what))
        return
    rotation, file = bench.rotation()
    settings = {"APP_CONNECTIONS_PER_WORKER": str(number + FREE)}
    with running(bench.service("idle", settings=settings), bench.folder) as server:
        tokens.verify(server, rotation)
        load.apply(server, bench.burst(file))  # so that the worker has allocated what requests need
        bench.results.rows.append(_measure(bench, server, file))


def _measure(bench: Bench, server: Server, file: Path) -> Row:
    number = bench.scale.idle_connections
    requests = {NONE: Requests(), MANY: Requests()}
    more: list[int] = []  # bytes; later rounds use memory that the first one has allocated
    for round_number in range(bench.scale.pair_rounds):
        bench.step(f"idle connections, round {round_number + 1} of {bench.scale.pair_rounds}")
        for name in alternate(requests, round_number):
            before = server.rss_bytes()
            with _idle(server, number if name == MANY else 0):
                more.append(server.rss_bytes() - before)
                load.record(server, bench.burst(file), requests[name])
            time.sleep(SETTLE_SECONDS)
    return Row.of_rates(
        f"`/tests/secret` with {number:,} idle connections to the worker / with none",
        requests[MANY],
        requests[NONE],
        0.95,
        f"{max(more) / number:,.0f} bytes of worker RSS per idle connection",
    )


@contextmanager
def _idle(server: Server, number: int) -> Iterator[None]:
    """Keep connections open and idle for the context. Raises BenchFailed if the service closes one of them."""
    with ExitStack() as stack:
        try:
            connections = []
            for n in range(number):
                connections.append(stack.enter_context(_connect(server, n)))
                _request(connections[-1])
            yield
            for connection in connections:
                _request(connection)
        except OSError as error:
            raise BenchFailed(f"{number:,} idle connections: {error}") from error


def _connect(server: Server, number: int) -> socket.socket:
    source = (f"127.0.0.{2 + number // PER_ADDRESS}", 0)
    return socket.create_connection(("127.0.0.1", server.port), READ_SECONDS, source)


def _request(connection: socket.socket) -> None:
    """Send a request and read its response, which arrives in one piece. Raises BenchFailed."""
    connection.sendall(REQUEST)
    response = connection.recv(READ_BYTES)
    if not response.startswith(b"HTTP/1.1 200 "):
        raise BenchFailed(f"an idle connection was answered with {response[:80]!r}")
