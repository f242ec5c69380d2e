"""Start a server on its core, wait until it responds, and stop it with all its processes."""

import http.client
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import ROOT, processes
from bench.machine import SERVER_CORE, BenchFailed
from tools.local_mongo import free_port

START_SECONDS = 30.0
STOP_SECONDS = 5.0  # then all remaining processes are killed, e.g. a stock Sanic that was stopped while it started
POLL_SECONDS = 0.005
PRIVATE_PREFIXES = ("APP_", "SANIC_", "BENCH_")  # of the caller's variables that a server must not inherit


@dataclass(frozen=True)
class Contender:
    """The start command of a server. `{port}` is replaced; secrets are in the environment."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    ready: str = "/tests/hello"  # the path that returns 200 when the server is ready
    cores: str = str(SERVER_CORE)
    root: Path = ROOT  # its working directory, whose modules it imports
    accepts_service_tokens: bool = False  # it verifies the tokens of this service, not its own

    def with_settings(self, settings: Mapping[str, str]) -> "Contender":
        """Describe the same server with other values of some variables."""
        return replace(self, environment={**self.environment, **settings})


@dataclass(frozen=True)
class Server:
    """A running server."""

    contender: Contender
    port: int
    pid: int
    start_seconds: float

    @property
    def name(self) -> str:
        """The name in the tables."""
        return self.contender.name

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection for sequential requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that all its processes have used so far."""
        return processes.cpu_seconds(self.pid)

    def rss_bytes(self) -> int:
        """Return the RSS of its worker."""
        return processes.worker(self.pid).rss_bytes

    def total_rss_bytes(self) -> int:
        """Return the RSS of all its processes: memory that they share counts for each of them."""
        return processes.rss_bytes(self.pid)

    def pss_bytes(self) -> int:
        """Return the PSS of all its processes: memory that they share counts once."""
        return processes.pss_bytes(self.pid)


@contextmanager
def running(contender: Contender, folder: Path) -> Iterator[Server]:
    """Run a server for the context, with its output in the folder. Raises BenchFailed."""
    port = free_port()
    log = folder / f"{contender.name}.log".replace(" ", "-").replace("/", "-")
    began = time.monotonic()
    process = _spawn(contender, port, log)
    guard = _guard(process)
    try:
        _wait(process, contender, port, log)
        yield Server(contender, port, process.pid, time.monotonic() - began)
    finally:
        _stop(process, guard)


def _spawn(contender: Contender, port: int, log: Path) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_PREFIXES)}
    command = [word.replace("{port}", str(port)) for word in contender.command]
    with log.open("ab") as output:
        return subprocess.Popen(
            ["taskset", "-c", contender.cores, *command],
            cwd=contender.root,
            env={**inherited, "PYTHONPATH": str(contender.root), **contender.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _guard(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Start a shell that kills the server's session when the bench closes the pipe or ends in any way."""
    command = ["sh", "-c", f"cat; kill -s KILL -- -{process.pid}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _wait(process: subprocess.Popen[bytes], contender: Contender, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port, contender.ready):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise BenchFailed(f"{contender.name} did not start: {lines[-1]}")
        if time.monotonic() > deadline:
            raise BenchFailed(f"{contender.name} started, but {contender.ready} did not return 200 in time")
        time.sleep(POLL_SECONDS)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes], guard: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    guard.communicate()  # closes the pipe, so that the guard kills the remaining processes
    process.wait()
