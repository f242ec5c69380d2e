"""Tests with processes that are killed, stopped under load, stopped during startup, or cannot start."""

import asyncio
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD
from tests.faults.conftest import READY_LINE, Server, fill, small_disk
from tests.processes import TIMEOUT_SECONDS, running, until
from tests.serving import CHECKOUT, SANIC, environment, started
from tests.test_workers import Connection
from tools.local_mongo import free_port

DRAIN_SECONDS = 2
LONG_DRAIN_SECONDS = 22
LOAD_CLIENTS = 40
NO_LIMITS = {f"LOGIN_FAILURES_PER_{what}": "1000000/hour" for what in ("PAIR", "ACCOUNT", "ADDRESS")}
REPLACEMENT_LINE = re.compile(r"ended with exit code -9 and is replaced")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW")
PATHS = (
    *("/tests/hello", "/tests/secret", "/nowhere", "/docs", "/docs/errors", "/docs/openapi.json", "/health/live"),
    *("/auth", "/auth/refresh", "/auth/verify", "/auth/me", "/auth/sessions", "/auth/logout", "/auth/logout-all"),
    *("/users", "/users/registration", "/users/me/password", "/users/me/delete", f"/users/{24 * '0'}"),
)

Note = Callable[[str], None]


@contextmanager
def starting(mongo_uri: str, *options: str, port: int = 0, **settings: str) -> Iterator[Server]:
    """Start two workers, or those of the options, and do not wait."""
    variables = {f"APP_{name}": value for name, value in settings.items()}
    options = ("--no-motd", *(options or ("--workers=2",)))
    with started(mongo_uri, *options, port=port, variables=variables) as (command, port):
        yield Server(command, port, mongo_uri)


@contextmanager
def serving(mongo_uri: str, *options: str, **settings: str) -> Iterator[Server]:
    """Start two workers, or those of the options, and wait until they are ready."""
    with starting(mongo_uri, *options, port=free_port(), **settings) as server:
        number = 1 if "--single-process" in options else 2
        server.command.wait_for(f"{server.url}/health/ready")
        until(lambda: len(ready_workers(server)) == number, "every worker is ready")
        yield server


def ready_workers(server: Server) -> list[int]:
    """Return the pids of all workers that have reported ready, in that order."""
    return [int(pid) for pid in READY_LINE.findall(server.command.output)]


def assert_ended(server: Server) -> None:
    """Fail unless every process ends and the port is closed."""
    until(lambda: not server.command.family(), "the end of every process")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


class Client:
    """A client with one connection, which it keeps until the server closes it."""

    def __init__(self, server: Server, *, new_connections: bool = True) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._http = httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=TIMEOUT_SECONDS)
        self._reconnects = new_connections

    async def send(self, method: str = "GET", path: str = "/tests/hello", **options: object) -> bool:
        """Send one request, record its result, and return whether to send another."""
        try:
            response = await self._http.request(method, path, **options)  # type: ignore[arg-type]
        except httpx.ConnectError:
            self.statuses["no connection"] += 1
            return False
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return False
        self.statuses[response.status_code] += 1
        return self._reconnects or response.headers["connection"] != "close"

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()


@pytest.mark.quick
def test_a_killed_worker_is_replaced_while_the_other_serves(mongo_uri: str, note: Note) -> None:
    """Twice, because a replacement must also be replaced."""
    with serving(mongo_uri) as server, ExitStack() as connections:
        for _ in range(2):
            known = ready_workers(server)
            surviving = connections.enter_context(closing(connect(server)))
            killed = connections.enter_context(closing(connect(server, other_than=surviving.worker)))
            began, requests = time.monotonic(), 0
            kill(killed.worker)
            while len(ready_workers(server)) == len(known):
                assert time.monotonic() - began < TIMEOUT_SECONDS
                assert surviving("GET", "/tests/hello").status_code == 200
                assert server.get("/tests/hello").status_code == 200, "on a new connection"
                requests += 2
            note(f"replaced after {time.monotonic() - began:.1f} s; {requests} requests in this time, all successful")
            server.command.wait_for(f"{server.url}/health/ready")
        assert len(REPLACEMENT_LINE.findall(server.command.output)) == 2, "one line for each replacement"


def connect(server: Server, *, other_than: int | None = None) -> Connection:
    """Connect to a worker other than the one with this pid."""
    while (connection := Connection(server.command, server.port)).worker == other_than:
        connection.close()
    return connection


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_worker_that_receives_sigterm_is_replaced(mongo_uri: str) -> None:
    with serving(mongo_uri) as server:
        os.kill(ready_workers(server)[0], signal.SIGTERM)
        until(lambda: len(ready_workers(server)) == 3, "a replacement worker")
        server.command.wait_for(f"{server.url}/health/ready")
        assert "Traceback" not in server.command.output


@pytest.mark.parametrize("options", [("--workers=2",), ("--single-process",)], ids=lambda options: options[0])
@pytest.mark.parametrize("group", [False, True], ids=["main", "group"])
def test_a_stop_under_load_answers_every_request(
    mongo_uri: str, options: tuple[str], note: Note, *, group: bool
) -> None:
    """The service is not ready immediately, serves until the load balancer has noticed, and then ends.

    The signal goes to the main process or to the process group.
    """
    if group and options[0] == "--single-process":
        pytest.skip("a single process is the whole process group")
    with serving(mongo_uri, *options, DRAIN_SECONDS=str(DRAIN_SECONDS), **NO_LIMITS) as server:
        statuses, unready = asyncio.run(stop_under_load(server, group=group))
        began = time.monotonic()
        assert server.command.wait() == 0, server.command.output
        note(f"{dict(statuses)}; not ready after {unready:.2f} s; ended {time.monotonic() - began:.2f} s later")
        assert "Traceback" not in server.command.output, server.command.output
        assert_ended(server)
    assert unready < 0.5
    assert set(statuses) <= {200, 401}


async def stop_under_load(server: Server, *, group: bool) -> tuple[Counter[int | str], float]:
    """Send SIGTERM during fast and slow requests; return all statuses and the seconds until readiness was 503."""
    noticed = asyncio.Event()
    clients = [Client(server, new_connections=False) for _ in range(LOAD_CLIENTS)]

    async def repeat(client: Client, number: int) -> None:
        if number % 8 == 0:  # password hashing is slow; these requests are queued when the signal arrives
            body = {"username": f"unknown-{number}", "password": PASSWORD}
            while await client.send("POST", "/auth", json=body):
                pass
            return
        while await client.send():
            pass

    async def keep_connecting() -> Client:
        """Open new connections until the load balancer would have noticed the stop."""
        client = Client(server)
        while not noticed.is_set():
            await client.send()
        return client

    tasks = [asyncio.create_task(repeat(client, number)) for number, client in enumerate(clients)]
    new_connections = asyncio.create_task(keep_connecting())
    await asyncio.sleep(1)
    began = time.monotonic()
    (os.killpg if group else os.kill)(server.command.pid, signal.SIGTERM)
    await asyncio.to_thread(until, lambda: server.get("/health/ready").status_code == 503, "503 from readiness")
    unready = time.monotonic() - began
    await asyncio.sleep(DRAIN_SECONDS / 2)
    noticed.set()
    await asyncio.gather(*tasks)
    clients.append(await new_connections)
    for client in clients:
        await client.close()
    return sum((client.statuses for client in clients), Counter[int | str]()), unready


def test_a_drain_time_above_twenty_seconds_is_observed(mongo_uri: str) -> None:
    """Sanic itself would kill its workers after twenty seconds."""
    with serving(mongo_uri, DRAIN_SECONDS=str(LONG_DRAIN_SECONDS)) as server:
        began = time.monotonic()
        server.command.send(signal.SIGTERM)
        while time.monotonic() - began < LONG_DRAIN_SECONDS - 0.5:
            assert server.get("/tests/hello").status_code == 200
            time.sleep(0.2)
        assert server.command.wait() == 0
        assert "Traceback" not in server.command.output, server.command.output
        assert_ended(server)


@pytest.mark.quick
def test_no_process_survives_a_killed_main_process(mongo_uri: str) -> None:
    """Not even during the drain time, because a restart needs the port."""
    with serving(mongo_uri, DRAIN_SECONDS=str(10 * TIMEOUT_SECONDS)) as server:
        family = server.command.family()
        assert len(family) >= 4, "the workers and the process with their shared state are running"
        server.command.send(signal.SIGKILL)
        assert_ended(server)


def test_workers_drain_and_end_if_the_shared_state_process_is_killed(mongo_uri: str) -> None:
    """The main process can no longer replace workers; it ends so that a supervisor restarts the service."""
    with serving(mongo_uri, DRAIN_SECONDS=str(DRAIN_SECONDS)) as server:
        known = {server.command.pid, *ready_workers(server)}
        (manager,) = (one for one in server.command.family() if one.pid not in known)
        began = time.monotonic()
        kill(manager.pid)
        until(lambda: server.get("/health/ready").status_code == 503, "503 from readiness", seconds=DRAIN_SECONDS)
        while time.monotonic() - began < DRAIN_SECONDS - 0.5:
            assert server.get("/tests/hello").status_code == 200
        assert server.command.wait() == 1
        assert "Traceback" not in server.command.output, server.command.output
        assert_ended(server)


def test_sigterm_during_startup_ends_the_service(mongo_uri: str) -> None:
    """At any moment; Sanic itself would wait for workers that it has already ended."""
    for moment in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2):
        with starting(mongo_uri) as server:
            time.sleep(moment)
            server.command.send(signal.SIGTERM)
            server.command.wait()
            assert "Traceback" not in server.command.output, server.command.output
            assert_ended(server)


def test_sigterm_during_a_worker_replacement_ends_the_service(mongo_uri: str) -> None:
    for moment in (0.1, 0.3, 0.6):
        with serving(mongo_uri) as server:
            kill(ready_workers(server)[0])
            time.sleep(moment)
            server.command.send(signal.SIGTERM)
            assert server.command.wait() == 0, server.command.output
            assert "Traceback" not in server.command.output, server.command.output
            assert_ended(server)


def test_a_worker_that_hangs_is_killed_after_the_graceful_shutdown_timeout(mongo_uri: str) -> None:
    with serving(mongo_uri, GRACEFUL_SHUTDOWN_TIMEOUT="1") as server:
        os.kill(ready_workers(server)[0], signal.SIGSTOP)
        server.command.send(signal.SIGTERM)
        assert server.command.wait() == 1
        assert_ended(server)


def metrics_of(server: Server) -> dict[str, float]:
    """Return all metrics, by name and labels."""
    lines = [line for line in server.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def rose_by_one(server: Server, name: str, before: dict[str, float]) -> bool:
    """Return whether a counter has risen by one."""
    return metrics_of(server).get(name, 0) == before.get(name, 0) + 1


def counters(values: dict[str, float]) -> dict[str, float]:
    """Return those that must not decrease."""
    return {name: value for name, value in values.items() if re.match(r"\w+_(total|count|sum|bucket)\b", name)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty folder for the temporary files of services."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_metrics_stay_right_while_workers_are_killed(mongo_uri: str, folder: Path) -> None:
    """No counter decreases, gauges are those of living workers, and the number of files does not grow."""
    hello = 'http_request_duration_seconds_count{method="GET",route="/tests/hello",status="200"}'
    with serving(mongo_uri) as server:
        (shared,) = folder.glob("metrics-*")
        files = {path.name for path in shared.iterdir()}
        before = metrics_of(server)
        for kills in range(1, 5):
            kill(ready_workers(server)[-1])
            while len(ready_workers(server)) < 2 + kills:
                now = metrics_of(server)
                assert not {name for name, value in counters(before).items() if now[name] < value}
                before = now
            assert server.get("/tests/hello").status_code == 200
            until(partial(rose_by_one, server, hello, before), "the request is counted, after its response")
            assert {path.name for path in shared.iterdir()} == files
        until(lambda: metrics_of(server)["revocations_age_seconds"] < 3, "every worker has read the revocations")
        assert metrics_of(server)["connections_open"] < 10


def test_the_next_start_removes_what_a_killed_main_process_has_left(mongo_uri: str, folder: Path) -> None:
    """But not what belongs to a running service."""
    with serving(mongo_uri):
        (running,) = folder.glob("metrics-*")
        with serving(mongo_uri) as server:
            (left,) = set(folder.glob("metrics-*")) - {running}
            server.command.send(signal.SIGKILL)
            assert_ended(server)
        assert left.exists()
        with serving(mongo_uri):
            assert running.exists()
            assert not left.exists()


def test_a_full_temporary_folder_does_not_stop_the_service(mongo_uri: str, folder: Path) -> None:
    """A write to a mapped file without space would kill a worker (SIGBUS), and a replacement could not start."""
    with small_disk(folder, megabytes=8) as disk, serving(mongo_uri) as server:
        fill(disk)
        with server.each_worker() as workers:
            for worker, path, method in product(workers, PATHS, METHODS):
                worker(method, path)  # each combination of method, route and status takes 3 kB
        kill(ready_workers(server)[0])
        until(lambda: len(ready_workers(server)) == 3, "a replacement worker")
        server.command.wait_for(f"{server.url}/health/ready")
        assert metrics_of(server)['security_events_total{event="logged_in"}'] == 0
        assert "exit code -7" not in server.command.output, "SIGBUS"
        assert len(REPLACEMENT_LINE.findall(server.command.output)) == 1


@pytest.mark.quick
def test_a_worker_that_cannot_start_ends_the_service_but_not_its_caller(mongo_uri: str, tmp_path: Path) -> None:
    """A script that starts the service in the same process group reads its exit code."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import multiprocessing\nfrom app import create_app\n"
        "def app(args=None):\n    created = create_app(args)\n"
        "    @created.before_server_start\n    async def fail(app):\n        raise RuntimeError('deliberate error')\n"
        "    return created\n"
    )
    port = free_port()
    script = f'"{SANIC}" broken:app --workers=2 --port={port} --no-motd; echo "exit code $?"'
    variables = environment(mongo_uri) | {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    with running(["sh", "-c", script], cwd=CHECKOUT, env=variables) as caller:
        assert caller.wait() == 0, caller.output
        assert caller.output.rstrip().endswith("exit code 1"), caller.output
        until(lambda: not caller.family(), "the end of every process")


@pytest.mark.quick
def test_a_port_in_use_is_reported_in_one_line(mongo_uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, starting(mongo_uri, port=taken.getsockname()[1]) as second:
        assert second.command.wait() == 1
        (line,) = second.command.output.splitlines()
        assert line == f"127.0.0.1:{taken.getsockname()[1]} cannot be used (Address already in use): " + (
            "choose another with --port"
        )
        until(lambda: not second.command.family(), "the end of every process")
