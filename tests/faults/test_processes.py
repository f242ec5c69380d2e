"""Processes are killed, told to stop under load or while they start, or cannot start; the others go on or all end."""

import asyncio
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD
from tests.faults.conftest import STARTED, Server
from tests.processes import running, until
from tests.serving import CHECKOUT, SANIC, environment, started
from tests.test_workers import Connection
from tools.local_mongo import free_port

DRAIN_SECONDS = 2
LONG_DRAIN_SECONDS = 22
CLIENTS = 40
REPLACED_SECONDS = 5
NO_LIMITS = {f"LOGIN_FAILURES_PER_{what}": "1000000/hour" for what in ("PAIR", "ACCOUNT", "ADDRESS")}
REPLACED = re.compile(r"ended with exit code -9 and is replaced")

Note = Callable[[str], None]


@contextmanager
def starting(mongo_uri: str, *options: str, port: int = 0, **settings: str) -> Iterator[Server]:
    """Start two workers, unless the options want otherwise, and wait for nothing."""
    variables = {f"APP_{name}": value for name, value in settings.items()}
    options = ("--no-motd", *(options or ("--workers=2",)))
    with started(mongo_uri, *options, port=port, variables=variables) as (command, port):
        yield Server(command, port, mongo_uri)


@contextmanager
def serving(mongo_uri: str, *options: str, **settings: str) -> Iterator[Server]:
    """Have two workers ready."""
    with starting(mongo_uri, *options, port=free_port(), **settings) as server:
        number = 1 if "--single-process" in options else 2
        until(lambda: len(ready_workers(server)) == number, "the start of every worker")
        server.command.wait_for(f"{server.url}/health/ready")
        yield server


def ready_workers(server: Server) -> list[int]:
    """List the pids that have said so, in their order."""
    return [int(pid) for pid in STARTED.findall(server.command.output)]


def gone(server: Server) -> None:
    """Fail unless everything ends and nobody listens."""
    until(lambda: not server.command.family(), "the end of every process", seconds=10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) != 0


class Client:
    """A client on a connection of its own that it keeps as long as the server does."""

    def __init__(self, server: Server, *, new_connections: bool = True) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._http = httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20)
        self._new_connections = new_connections

    async def ask(self, method: str = "GET", path: str = "/tests/hello", **options: object) -> bool:
        """Send one request, write down what came back, and tell whether the connection stays."""
        try:
            response = await self._http.request(method, path, **options)  # type: ignore[arg-type]
        except httpx.ConnectError:
            self.statuses["no connection"] += 1
            return False
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return False
        self.statuses[response.status_code] += 1
        return self._new_connections or response.headers["connection"] != "close"

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()


@pytest.mark.quick
def test_a_killed_worker_is_replaced_and_the_other_serves_on(mongo_uri: str, note: Note) -> None:
    """Twice, because the replacement is a worker like any other."""
    with serving(mongo_uri) as server, ExitStack() as connections:
        for _ in range(2):
            known = ready_workers(server)
            here = connections.enter_context(closing(connect(server)))
            there = connections.enter_context(closing(connect(server, besides=here.worker)))
            began, asked = time.monotonic(), 0
            kill(there.worker)
            while len(ready_workers(server)) == len(known):
                assert time.monotonic() - began < REPLACED_SECONDS
                assert here("GET", "/tests/hello").status_code == 200
                assert server.get("/tests/hello").status_code == 200, "on a new connection"
                asked += 2
            note(f"replaced after {time.monotonic() - began:.1f} s; {asked} requests meanwhile, all answered")
            server.command.wait_for(f"{server.url}/health/ready")
        assert len(REPLACED.findall(server.command.output)) == 2, "one line for each"


def connect(server: Server, *, besides: int | None = None) -> Connection:
    """Connect to a worker, besides the one that is connected to already."""
    port = int(server.url.rpartition(":")[2])
    while (connection := Connection(server.command, port)).worker == besides:
        connection.close()
    return connection


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_worker_that_is_told_to_end_is_replaced(mongo_uri: str) -> None:
    with serving(mongo_uri) as server:
        os.kill(ready_workers(server)[0], signal.SIGTERM)
        until(lambda: len(ready_workers(server)) == 3, "a new worker", seconds=REPLACED_SECONDS)
        server.command.wait_for(f"{server.url}/health/ready")
        assert "Traceback" not in server.command.output


@pytest.mark.parametrize("options", [("--workers=2",), ("--single-process",)], ids=lambda options: options[0])
@pytest.mark.parametrize("group", [False, True], ids=["main", "group"])
def test_a_stop_under_load_answers_everybody(mongo_uri: str, options: tuple[str], note: Note, *, group: bool) -> None:
    """Not ready at once, serving on while the load balancer notices, and then out, whoever was told."""
    if group and options[0] == "--single-process":
        pytest.skip("it is the group")
    with serving(mongo_uri, *options, DRAIN_SECONDS=str(DRAIN_SECONDS), **NO_LIMITS) as server:
        statuses, unready = asyncio.run(stop_under_load(server, group=group))
        began = time.monotonic()
        assert server.command.wait() == 0, server.command.output
        note(f"{dict(statuses)}; not ready after {unready:.2f} s; gone {time.monotonic() - began:.2f} s after the last")
        assert "Traceback" not in server.command.output, server.command.output
        gone(server)
    assert unready < 0.5
    assert set(statuses) <= {200, 401}


async def stop_under_load(server: Server, *, group: bool) -> tuple[Counter[int | str], float]:
    """Tell the service to stop amid quick and slow requests; return all answers, and when it was not ready."""
    over = asyncio.Event()
    clients = [Client(server, new_connections=False) for _ in range(CLIENTS)]

    async def again(client: Client, number: int) -> None:
        if number % 8 == 0:  # passwords are slow; these wait for each other beyond the signal
            body = {"username": f"nobody-{number}", "password": PASSWORD}
            while await client.ask("POST", "/auth", json=body):
                pass
            return
        while await client.ask():
            pass

    async def arrive() -> Client:
        """Come anew until the load balancer has noticed."""
        client = Client(server)
        while not over.is_set():
            await client.ask()
        return client

    tasks = [asyncio.create_task(again(client, number)) for number, client in enumerate(clients)]
    newcomer = asyncio.create_task(arrive())
    await asyncio.sleep(1)
    began = time.monotonic()
    (os.killpg if group else os.kill)(server.command.pid, signal.SIGTERM)
    await asyncio.to_thread(until, lambda: server.get("/health/ready").status_code == 503, "word of it")
    unready = time.monotonic() - began
    await asyncio.sleep(DRAIN_SECONDS / 2)
    over.set()
    await asyncio.gather(*tasks)
    clients.append(await newcomer)
    for client in clients:
        await client.close()
    return sum((client.statuses for client in clients), Counter[int | str]()), unready


def test_a_long_drain_is_kept(mongo_uri: str) -> None:
    """Sanic alone would have given up after twenty seconds, and ended its workers without asking."""
    with serving(mongo_uri, DRAIN_SECONDS=str(LONG_DRAIN_SECONDS)) as server:
        began = time.monotonic()
        server.command.send(signal.SIGTERM)
        while time.monotonic() - began < LONG_DRAIN_SECONDS - 0.5:
            assert server.get("/tests/hello").status_code == 200
            time.sleep(0.2)
        assert server.command.wait() == 0
        assert "Traceback" not in server.command.output, server.command.output
        gone(server)


@pytest.mark.quick
def test_killed_without_a_word_the_main_process_leaves_nobody(mongo_uri: str) -> None:
    """Not even for the drain time: whoever starts it again needs the port."""
    with serving(mongo_uri, DRAIN_SECONDS="30") as server:
        family = server.command.family()
        assert len(family) >= 4, "the workers, and what holds their states"
        server.command.send(signal.SIGKILL)
        gone(server)


def test_without_the_process_that_holds_their_states_the_workers_finish_and_end(mongo_uri: str) -> None:
    """Nobody could replace them any more; whoever supervises the service starts it anew."""
    with serving(mongo_uri, DRAIN_SECONDS=str(DRAIN_SECONDS)) as server:
        known = {server.command.pid, *ready_workers(server)}
        (holder,) = (one for one in server.command.family() if one.pid not in known and "spawn_main" in one.command)
        began = time.monotonic()
        kill(holder.pid)
        until(lambda: server.get("/health/ready").status_code == 503, "word of it", seconds=1)
        while time.monotonic() - began < DRAIN_SECONDS - 0.5:
            assert server.get("/tests/hello").status_code == 200
        assert server.command.wait() == 1
        assert "Traceback" not in server.command.output, server.command.output
        gone(server)


def test_told_to_stop_while_it_starts_it_ends(mongo_uri: str) -> None:
    """At whatever moment: Sanic would wait for workers that it has ended itself."""
    for moment in (0.4, 0.8, 1.0, 1.2, 1.4):
        with starting(mongo_uri) as server:
            time.sleep(moment)
            server.command.send(signal.SIGTERM)
            server.command.wait()
            assert "Traceback" not in server.command.output, server.command.output
            gone(server)


def test_told_to_stop_while_a_worker_is_replaced_it_ends(mongo_uri: str) -> None:
    for moment in (0.1, 0.3, 0.6):
        with serving(mongo_uri) as server:
            kill(ready_workers(server)[0])
            time.sleep(moment)
            server.command.send(signal.SIGTERM)
            assert server.command.wait() == 0, server.command.output
            assert "Traceback" not in server.command.output, server.command.output
            gone(server)


def test_a_worker_that_hangs_is_killed_when_the_grace_is_over(mongo_uri: str) -> None:
    with serving(mongo_uri, GRACEFUL_SHUTDOWN_TIMEOUT="1") as server:
        os.kill(ready_workers(server)[0], signal.SIGSTOP)
        server.command.send(signal.SIGTERM)
        assert server.command.wait() == 1
        gone(server)


@pytest.mark.quick
def test_a_worker_that_cannot_start_ends_the_service_and_not_its_caller(mongo_uri: str, tmp_path: Path) -> None:
    """A script that starts it, in the same process group, reads the exit code."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import multiprocessing\nfrom app import create_app\n"
        "def app(args=None):\n    made = create_app(args)\n"
        "    @made.before_server_start\n    async def fail(app):\n        raise RuntimeError('on purpose')\n"
        "    return made\n"
    )
    port = free_port()
    script = f'"{SANIC}" broken:app --workers=2 --port={port} --no-motd; echo "exit code $?"'
    variables = environment(mongo_uri) | {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    with running(["sh", "-c", script], cwd=CHECKOUT, env=variables) as caller:
        assert caller.wait() == 0, caller.output
        assert caller.output.rstrip().endswith("exit code 1"), caller.output
        until(lambda: not caller.family(), "the end of every process")


@pytest.mark.quick
def test_a_port_that_is_taken_is_one_line(mongo_uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, starting(mongo_uri, port=taken.getsockname()[1]) as second:
        assert second.command.wait() == 1
        (line,) = second.command.output.splitlines()
        assert line == f"127.0.0.1:{taken.getsockname()[1]} cannot be used (Address already in use): " + (
            "choose another with --port"
        )
        until(lambda: not second.command.family(), "the end of every process")
