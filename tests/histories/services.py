"""The system under test: two services on a replica set of three, all of which can be disturbed."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from tests.conftest import Document
from tests.histories.checker import Periods
from tests.processes import Command, running, until
from tests.serving import CHECKOUT, SANIC, environment
from tools.local_mongo import ReplicaSet, free_port

SERVICES = 2
MEMBERS = 3
TEST_COMMANDS = ("--setParameter", "enableTestCommands=1")  # for fail points
PERIODS = Periods(grace=1.0, stale=2.0)
POLL_SECONDS = 0.2
MONGO_SECONDS = 1.0  # the time budget of a request
FINISH_SECONDS = 20  # for ends of sessions that were interrupted; usually it takes one poll
UNLIMITED = "1000000/minute"
SETTINGS = {
    "REFRESH_GRACE_SECONDS": f"{PERIODS.grace:.0f}",
    "REVOCATION_STALE_SECONDS": f"{PERIODS.stale}",
    "REVOCATION_POLL_SECONDS": f"{POLL_SECONDS}",
    "MONGO_TIMEOUT_SECONDS": f"{MONGO_SECONDS}",
    "LOGIN_FAILURES_PER_PAIR": UNLIMITED,
    "LOGIN_FAILURES_PER_ACCOUNT": UNLIMITED,
    "LOGIN_FAILURES_PER_ADDRESS": UNLIMITED,
    "REGISTRATIONS_PER_ADDRESS": UNLIMITED,
    "THROTTLE_STORAGE": "memory",  # less work for the database
    "PASSWORD_HASHING_QUEUE": "1000",
}
REAL = "app"
DEFECTIVE = "tests.histories.serve:app"
READY_LINE = re.compile(r"Worker ready \[(\d+)\]")


class Service:
    """A service with one worker."""

    def __init__(self, command: Command, port: int) -> None:
        self.command = command
        self.url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Return whether the service can serve."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/ready", trust_env=False).is_success
        return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker, if there is one at the moment."""
        workers = READY_LINE.findall(self.command.output)
        with suppress(ProcessLookupError):
            os.kill(int(workers[-1]), number)


class Member:
    """A direct connection to a member of the replica set."""

    def __init__(self, uri: str) -> None:
        self._client = MongoClient[Document](uri, directConnection=True, timeoutMS=10_000)

    def is_primary(self) -> bool:
        """Return whether the member accepts writes."""
        return bool(self.admin("hello").get("isWritablePrimary"))

    def admin(self, command: str, value: Any = 1, **options: Any) -> Document:
        """Return the reply to an administrative command, which may be an error; an empty one if there is none."""
        with suppress(PyMongoError):
            return dict(self._client.admin.command(command, value, check=False, **options))
        return {}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@dataclass(frozen=True)
class System:
    """The services, the members of the replica set, and a connection to the primary."""

    services: list[Service]
    members: list[Member]
    database: Database[Document]

    def primary(self) -> Member | None:
        """Return the member that is the primary at the moment."""
        return next((member for member in self.members if member.is_primary()), None)

    def recover(self) -> None:
        """Wait until all services are ready, and, but not long, until they have finished all ends of sessions.

        If they never do, the checker will notice.
        """
        until(lambda: all(service.ready() for service in self.services), "the services are ready")
        with suppress(AssertionError):
            until(lambda: not self._has_unfinished_ends(), "all ends are finished", seconds=FINISH_SECONDS)

    def _has_unfinished_ends(self) -> bool:
        return any(self.database[name].find_one({"ending": True}) for name in ("users", "sessions"))


@contextmanager
def running_replica_set(data: Path) -> Iterator[ReplicaSet]:
    """Run a replica set with fail points."""
    replica_set = ReplicaSet(data, MEMBERS, TEST_COMMANDS)
    try:
        replica_set.start()
        yield replica_set
    finally:
        replica_set.stop()


@contextmanager
def running_system(replica_set: ReplicaSet, defect: str | None = None) -> Iterator[System]:
    """Run the services, with a seeded defect or without, on an empty database."""
    with ExitStack() as opened:
        members = [opened.enter_context(_closing(member.uri)) for member in replica_set.members]
        client = opened.enter_context(MongoClient[Document](replica_set.uri, w="majority"))
        database = client.get_default_database()
        client.drop_database(database.name)
        variables = environment(replica_set.uri) | {f"APP_{name}": value for name, value in SETTINGS.items()}
        if defect:
            variables["HISTORIES_DEFECT"] = defect
        system = System([], members, database)
        for _ in range(SERVICES):
            port = free_port()
            command = [SANIC, DEFECTIVE if defect else REAL, f"--port={port}", "--workers=1", "--no-motd"]
            system.services.append(Service(opened.enter_context(running(command, cwd=CHECKOUT, env=variables)), port))
        for service in system.services:
            service.command.wait_for(f"{service.url}/health/ready")
        yield system


@contextmanager
def _closing(uri: str) -> Iterator[Member]:
    member = Member(uri)
    try:
        yield member
    finally:
        member.close()
