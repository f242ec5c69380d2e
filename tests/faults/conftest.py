"""Fixtures for fault injection: a server, its MongoDB, and a mixed load that records all responses."""

import asyncio
import re
import secrets
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD, Document
from tests.processes import TIMEOUT_SECONDS, Command, Process, open_files, until
from tests.serving import WORKERS, started
from tests.test_workers import Connection
from tools.local_mongo import LocalMongo, ReplicaSet

MONGO_SECONDS = 2  # APP_MONGO_TIMEOUT_SECONDS of the servers here
RESPONSE_LIMIT_SECONDS = MONGO_SECONDS + 0.5  # the maximum time until a response
RECOVERY_SECONDS = 5  # the maximum time until every request succeeds again
READY_LINE = re.compile(r"Worker ready \[(\d+)\]")
LOAD_CLIENTS = 8  # concurrent clients of a load
PAUSE_SECONDS = 0.15  # between two requests of a client
NEW_PASSWORD = "a quite different sentence"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without it every client spends 20 ms on loading certificates


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder; skip them on systems without /proc."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="requires /proc and signals"))


class Server:
    """`sanic app` with two workers."""

    def __init__(self, command: Command, port: int, mongo_uri: str) -> None:
        self.command = command
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.mongo_uri = mongo_uri

    @property
    def workers(self) -> list[Process]:
        """The worker processes that have reported that they are ready."""
        ready = {int(pid) for pid in READY_LINE.findall(self.command.output)}
        return sorted((one for one in self.command.family() if one.pid in ready), key=lambda one: one.pid)

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """Send a GET request on a new connection."""
        return self._send("GET", path, token)

    def post(self, path: str, token: str | None = None, **body: str) -> httpx.Response:
        """Send a POST request on a new connection."""
        return self._send("POST", path, token, body or None)

    def _send(self, method: str, path: str, token: str | None, body: Document | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(trust_env=False, timeout=TIMEOUT_SECONDS, verify=NO_TLS) as client:
            return client.request(method, self.url + path, headers=headers, json=body)

    def ready(self) -> bool:
        """Return whether one of the workers reports that it is ready."""
        return self.get("/health/ready").status_code == 200

    @contextmanager
    def each_worker(self) -> Iterator[list[Connection]]:
        """Open a connection to every worker.

        Two workers are not one: each has its own connections to the database, and learns of the logouts of the other
        with its next poll.
        """
        with ExitStack() as opened:
            connections: dict[int, Connection] = {}

            def connected() -> bool:
                connection = opened.enter_context(closing(Connection(self.command, self.port)))
                connections.setdefault(connection.worker, connection)
                return connections.keys() >= {one.pid for one in self.workers}

            until(connected, "a connection to every worker")
            yield list(connections.values())

    def wait_until_ready(self, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until every worker reports that it is ready."""
        with self.each_worker() as workers:
            until(
                lambda: all(worker("GET", "/health/ready").status_code == 200 for worker in workers),
                "every worker is ready",
                seconds=seconds,
            )


@contextmanager
def serving(mongo_uri: str, **settings: str) -> Iterator[Server]:
    """Run two workers on the database. The names of the settings have no APP_ prefix."""
    variables = {
        "APP_MONGO_TIMEOUT_SECONDS": str(MONGO_SECONDS),
        "APP_REGISTRATIONS_PER_ADDRESS": "100000/minute",
        "APP_RESETS_PER_ADDRESS": "100000/minute",
        "APP_LOGIN_FAILURES_PER_ADDRESS": "100000/minute",
        **{f"APP_{name}": value for name, value in settings.items()},
    }
    with started(mongo_uri, variables=variables) as (command, port):
        command.wait_for(f"http://127.0.0.1:{port}/tests/hello")
        server = Server(command, port, mongo_uri)
        until(lambda: len(server.workers) == WORKERS, "every worker has started")
        yield server
        command.send(signal.SIGTERM)
        assert command.wait() == 0
        assert "Traceback" not in command.output, command.output


@contextmanager
def running_mongo(data: Path, *options: str, port: int | None = None) -> Iterator[LocalMongo]:
    """Run a MongoDB, and stop it also if the test fails: no process may outlive its test."""
    mongo = LocalMongo(data, port, options)
    try:
        mongo.start()
        yield mongo
    finally:
        mongo.stop()


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[LocalMongo]:
    """Run a MongoDB into which a test can inject faults."""
    with running_mongo(tmp_path / "mongodb") as mongo:
        yield mongo


@pytest.fixture
def replica_set(tmp_path: Path) -> Iterator[ReplicaSet]:
    """Run a replica set with three members."""
    replica_set = ReplicaSet(tmp_path / "mongodb", 3)
    try:
        replica_set.start()
        yield replica_set
    finally:
        replica_set.stop()


@pytest.fixture
def server(mongo: LocalMongo) -> Iterator[Server]:
    """Run a service on the MongoDB into which a test can inject faults."""
    with serving(mongo.uri) as server:
        yield server


@dataclass(frozen=True)
class Response:
    """The response to one request. The status is 0 if the connection failed."""

    sent_at: float
    seconds: float
    route: str
    status: int
    retry_after: bool


@dataclass
class Account:
    """An account whose registration was acknowledged, and its expected state."""

    username: str
    passwords: set[str] = field(default_factory=lambda: {PASSWORD})  # two if a password change had no response
    logged_out: list[Document] = field(default_factory=list)


class Load:
    """Clients that repeatedly register, get a resource, log in, refresh, log out and change their password."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.responses: list[Response] = []
        self.accounts: list[Account] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let all clients complete their requests and stop."""
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        clients = (self._repeat(self._use_account) for _ in range(LOAD_CLIENTS))
        await asyncio.gather(self._repeat(self._get_hello), *clients)

    async def _repeat(self, action: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            while not self._stopping.is_set():
                await action(client)

    async def _get_hello(self, client: httpx.AsyncClient) -> None:
        await self._send(client, "GET", "/tests/hello")

    async def _use_account(self, client: httpx.AsyncClient) -> None:
        """Send every request once; a failed request is not retried."""
        credentials = {"username": f"p-{secrets.token_hex(8)}", "password": PASSWORD}
        tokens = await self._send(client, "POST", "/users/registration", credentials)
        if tokens is None:
            return
        account = Account(credentials["username"])
        self.accounts.append(account)
        await self._send(client, "GET", "/tests/secret", tokens=tokens)
        if other_session := await self._send(client, "POST", "/auth", credentials):
            refresh = {"refresh_token": other_session["refresh_token"]}
            other_session = await self._send(client, "POST", "/auth/refresh", refresh) or other_session
            if await self._send(client, "POST", "/auth/logout", tokens=other_session) is not None:
                account.logged_out.append(other_session)
        await self._change_password(client, account, tokens)

    async def _change_password(self, client: httpx.AsyncClient, account: Account, tokens: Document) -> None:
        account.passwords.add(NEW_PASSWORD)
        change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        if await self._send(client, "POST", "/users/me/password", change, tokens=tokens) is not None:
            account.passwords.remove(PASSWORD)
            account.logged_out.append(tokens)

    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        tokens: Document | None = None,
    ) -> Document | None:
        """Return the body of a success response, None for any other response."""
        await asyncio.sleep(PAUSE_SECONDS)
        headers = {"Authorization": f"Bearer {tokens['access_token']}"} if tokens else {}
        sent_at = time.monotonic()
        try:
            response = await client.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            response = httpx.Response(0)
        seconds = time.monotonic() - sent_at
        self.responses.append(Response(sent_at, seconds, path, response.status_code, "retry-after" in response.headers))
        if not response.is_success:
            return None
        return dict(response.json()) if response.content else {}

    def seconds_since(self, status: int) -> float:
        """Return the seconds since the latest response with this status."""
        received = (one.sent_at + one.seconds for one in self.responses if one.status == status)
        return time.monotonic() - max(received, default=float("-inf"))

    def assert_in_time(self) -> None:
        """Fail if a response took longer than the limit."""
        assert not [one for one in self.responses if one.seconds > RESPONSE_LIMIT_SECONDS]

    def assert_expected_statuses(self) -> None:
        """Fail if hello failed, or if an error is not 503 with Retry-After."""
        assert not [one for one in self.responses if one.route == "/tests/hello" and one.status != 200]
        assert not [one for one in self.responses if one.status not in (200, 201, 204, 503)]
        assert not [one for one in self.responses if one.status == 503 and not one.retry_after]

    def assert_acknowledged_writes(self) -> None:
        """Fail if an acknowledged write was lost."""
        for account in self.accounts:
            statuses = {
                password: self.server.post("/auth", username=account.username, password=password).status_code
                for password in account.passwords
            }
            assert list(statuses.values()).count(200) == 1, (account.username, statuses)
            for tokens in account.logged_out:
                until(partial(self._is_revoked, tokens), "401 from a worker that had not yet polled the logout")
                refreshed = self.server.post("/auth/refresh", refresh_token=tokens["refresh_token"])
                assert refreshed.status_code == 401, account.username

    def _is_revoked(self, tokens: Document) -> bool:
        return self.server.get("/tests/secret", tokens["access_token"]).status_code == 401

    def report(self) -> str:
        """Return a one-line summary of the responses."""
        hello = [one.seconds for one in self.responses if one.route == "/tests/hello"]
        others = [one for one in self.responses if one.route != "/tests/hello"]
        unavailable = [one for one in others if one.status == 503]
        return (
            f"{len(self.responses)} responses {dict(Counter(one.status for one in self.responses))}; 503 "
            f"{len(unavailable) / len(others):.0%}; slowest {max(one.seconds for one in others):.2f} s, "
            f"hello {max(hello):.3f} s (median {statistics.median(hello):.3f}); "
            f"{len(self.accounts)} registered, {sum(len(one.logged_out) for one in self.accounts)} sessions ended"
        )


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a small file system in memory; skip the test if mounting is not allowed."""
    folder.mkdir(exist_ok=True)
    if subprocess.call(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]):  # noqa: S607
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        # The threads of a killed process hold their files for a moment longer than the process is listed.
        until(lambda: subprocess.call(["umount", folder]) == 0, "the end of all use of the disk")  # noqa: S607


def fill(disk: Path) -> Path:
    """Fill the disk and return the file that fills it."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    return ballast


def thread_count(process: Process) -> int:
    """Return the number of threads of a process."""
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


@dataclass(frozen=True)
class Footprint:
    """The resources that a process uses."""

    connections: int  # to the database
    threads: int
    megabytes: int

    @classmethod
    def of(cls, process: Process, port: int) -> "Footprint":
        """Measure a process whose database listens on this loopback port (proc_pid_status(5), proc_net_tcp(5))."""
        status = Path(f"/proc/{process.pid}/status").read_text()
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}
        return cls(
            connections=len(established & open_files(process)),
            threads=thread_count(process),
            megabytes=int(status.partition("VmRSS:")[2].split()[0]) // 1024,
        )

    @classmethod
    def maximum(cls, several: list["Footprint"]) -> "Footprint":
        """Return the maximum of each resource."""
        return cls(
            max(one.connections for one in several),
            max(one.threads for one in several),
            max(one.megabytes for one in several),
        )
