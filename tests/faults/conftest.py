"""A real server on a MongoDB of its own that can be hurt, and a mixed load that writes down what it was told."""

import asyncio
import re
import secrets
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD, Document
from tests.processes import Command, Process
from tests.serving import started
from tools.local_mongo import LocalMongo, ReplicaSet

MONGO_SECONDS = 2  # APP_MONGO_TIMEOUT_SECONDS of the servers here
LIMIT_SECONDS = MONGO_SECONDS + 0.5  # within which everything is answered
BACK_SECONDS = 5  # within which everything works again
STARTED = re.compile(r"Worker ready \[(\d+)\]")
PEOPLE = 8  # who use the service at once
PAUSE_SECONDS = 0.15  # of everybody between two requests
NEW_PASSWORD = "a quite different sentence"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and skip it where there is no /proc."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="it is all about /proc and signals"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was measured."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for _, text in report.user_properties if report.when == "call" else ():
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Give a way to say in the summary what was measured."""
    return partial(record_property, "measured")


class Server:
    """`sanic app` with two workers."""

    def __init__(self, command: Command, port: int, mongo_uri: str) -> None:
        self.command = command
        self.url = f"http://127.0.0.1:{port}"
        self.mongo_uri = mongo_uri

    @property
    def workers(self) -> list[Process]:
        """The processes that say they are ready."""
        ready = {int(pid) for pid in STARTED.findall(self.command.output)}
        return sorted((one for one in self.command.family() if one.pid in ready), key=lambda one: one.pid)

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """Ask on a connection of its own."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(self.url + path, headers=headers, trust_env=False, timeout=20)

    def post(self, path: str, token: str | None = None, **body: str) -> httpx.Response:
        """Post on a connection of its own."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.post(self.url + path, json=body or None, headers=headers, trust_env=False, timeout=20)

    def ready(self) -> bool:
        """Tell whether the service says it can serve."""
        return self.get("/health/ready").status_code == 200


@contextmanager
def serving(mongo_uri: str, **settings: str) -> Iterator[Server]:
    """Run two workers on the database; settings are named without their prefix."""
    variables = {
        "APP_MONGO_TIMEOUT_SECONDS": str(MONGO_SECONDS),
        "APP_REGISTRATIONS_PER_ADDRESS": "100000/minute",
        "APP_LOGIN_FAILURES_PER_ADDRESS": "100000/minute",
        **{f"APP_{name}": value for name, value in settings.items()},
    }
    with started(mongo_uri, variables=variables) as (command, port):
        command.wait_for(f"http://127.0.0.1:{port}/tests/hello")
        yield Server(command, port, mongo_uri)
        command.send(signal.SIGTERM)
        assert command.wait() == 0
        assert "Traceback" not in command.output, command.output


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[LocalMongo]:
    """Give a MongoDB to hurt."""
    mongo = LocalMongo(tmp_path / "mongodb")
    mongo.start()
    yield mongo
    mongo.stop()


@pytest.fixture
def replica_set(tmp_path: Path) -> Iterator[ReplicaSet]:
    """Give three of them."""
    replica_set = ReplicaSet(tmp_path / "mongodb", 3)
    replica_set.start()
    yield replica_set
    replica_set.stop()


@pytest.fixture
def server(mongo: LocalMongo) -> Iterator[Server]:
    """Give a service on the MongoDB that can be hurt."""
    with serving(mongo.uri) as server:
        yield server


@dataclass(frozen=True)
class Answer:
    """What came back to one request. A status of 0 is a connection that broke."""

    at: float
    seconds: float
    route: str
    status: int
    retry_after: bool


@dataclass
class Person:
    """Somebody whose registration was acknowledged, and what else must be true of them."""

    username: str
    passwords: set[str] = field(default_factory=lambda: {PASSWORD})  # two, if it is unknown whether one was changed
    logged_out: list[Document] = field(default_factory=list)


class Load:
    """People who register, log in, refresh, look, change their password and log out, again and again."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answers: list[Answer] = []
        self.people: list[Person] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._everybody()))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Have everybody finish and leave."""
        self._over.set()
        self._thread.join()

    async def _everybody(self) -> None:
        await asyncio.gather(self._again(self._greet), *(self._again(self._live) for _ in range(PEOPLE)))

    async def _again(self, what: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=20, trust_env=False) as client:
            while not self._over.is_set():
                await what(client)

    async def _greet(self, client: httpx.AsyncClient) -> None:
        await self._ask(client, "GET", "/tests/hello")

    async def _live(self, client: httpx.AsyncClient) -> None:
        """Do everything once; what fails is left out."""
        credentials = {"username": f"p-{secrets.token_hex(8)}", "password": PASSWORD}
        tokens = await self._ask(client, "POST", "/users/registration", credentials)
        if tokens is None:
            return
        person = Person(credentials["username"])
        self.people.append(person)
        await self._ask(client, "GET", "/tests/secret", tokens=tokens)
        if elsewhere := await self._ask(client, "POST", "/auth", credentials):
            refresh = {"refresh_token": elsewhere["refresh_token"]}
            elsewhere = await self._ask(client, "POST", "/auth/refresh", refresh) or elsewhere
            if await self._ask(client, "POST", "/auth/logout", tokens=elsewhere) is not None:
                person.logged_out.append(elsewhere)
        await self._change_password(client, person, tokens)

    async def _change_password(self, client: httpx.AsyncClient, person: Person, tokens: Document) -> None:
        person.passwords.add(NEW_PASSWORD)
        change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        if await self._ask(client, "POST", "/users/me/password", change, tokens=tokens) is not None:
            person.passwords.remove(PASSWORD)
            person.logged_out.append(tokens)

    async def _ask(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        tokens: Document | None = None,
    ) -> Document | None:
        """Return what a successful answer contains, None for any other."""
        await asyncio.sleep(PAUSE_SECONDS)
        headers = {"Authorization": f"Bearer {tokens['access_token']}"} if tokens else {}
        began = time.monotonic()
        try:
            response = await client.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            response = httpx.Response(0)
        seconds = time.monotonic() - began
        self.answers.append(Answer(began, seconds, path, response.status_code, "retry-after" in response.headers))
        if not response.is_success:
            return None
        return dict(response.json()) if response.content else {}

    def seconds_since(self, status: int) -> float:
        """Tell how long ago the latest answer with this status came."""
        came = (one.at + one.seconds for one in self.answers if one.status == status)
        return time.monotonic() - max(came, default=float("-inf"))

    def check_time(self) -> None:
        """Nobody waited longer than the limit."""
        assert not [one for one in self.answers if one.seconds > LIMIT_SECONDS]

    def check_answers(self) -> None:
        """Hello was not disturbed, and every refusal was an honest one."""
        assert not [one for one in self.answers if one.route == "/tests/hello" and one.status != 200]
        assert not [one for one in self.answers if one.status not in (200, 201, 204, 503)]
        assert not [one for one in self.answers if one.status == 503 and not one.retry_after]

    def check_memory(self) -> None:
        """Whatever was acknowledged is so."""
        for person in self.people:
            statuses = {
                password: self.server.post("/auth", username=person.username, password=password).status_code
                for password in person.passwords
            }
            assert list(statuses.values()).count(200) == 1, (person.username, statuses)
            for tokens in person.logged_out:
                assert self.server.get("/tests/secret", tokens["access_token"]).status_code == 401
                refreshed = self.server.post("/auth/refresh", refresh_token=tokens["refresh_token"])
                assert refreshed.status_code == 401, person.username

    def report(self) -> str:
        """Say in a line what came back."""
        hello = [one.seconds for one in self.answers if one.route == "/tests/hello"]
        others = [one for one in self.answers if one.route != "/tests/hello"]
        refused = [one for one in others if one.status == 503]
        return (
            f"{len(self.answers)} answers {dict(Counter(one.status for one in self.answers))}; refused "
            f"{len(refused) / len(others):.0%}; slowest {max(one.seconds for one in others):.2f} s, "
            f"hello {max(hello):.3f} s (median {statistics.median(hello):.3f}); "
            f"{len(self.people)} registered, {sum(len(one.logged_out) for one in self.people)} sessions ended"
        )


def threads(process: Process) -> int:
    """Count the threads of a process."""
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


@dataclass(frozen=True)
class Footprint:
    """What a process uses of the machine."""

    connections: int  # to the database
    threads: int
    megabytes: int

    @classmethod
    def of(cls, process: Process, port: int) -> "Footprint":
        """Measure a process whose database listens on the loopback port (proc_pid_status(5), proc_net_tcp(5))."""
        status = Path(f"/proc/{process.pid}/status").read_text()
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}
        return cls(
            connections=len(established & files(process)),
            threads=threads(process),
            megabytes=int(status.partition("VmRSS:")[2].split()[0]) // 1024,
        )

    @classmethod
    def most(cls, several: list["Footprint"]) -> "Footprint":
        """Return the most of each."""
        return cls(
            max(one.connections for one in several),
            max(one.threads for one in several),
            max(one.megabytes for one in several),
        )


def files(process: Process) -> set[str]:
    """Name what a process has open."""
    found = set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we look
            found.add(str(file.readlink()))
    return found
