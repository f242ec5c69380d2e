"""A replica set of three members, service a with two workers and service b with one, on hosts of their own.

With resource servers, those of a and those of b are on one more host, c.
"""

import os
import secrets
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path

from pymongo.errors import PyMongoError

from tests.partition.members import Member, wall_clock
from tests.partition.network import Host, Network
from tests.partition.services import Service, Worker
from tests.partition.verifiers import ResourceServer
from tests.processes import until
from tests.serving import environment
from tools.mongod import DATABASE, REPLICA_SET

MEMBERS = ("m1", "m2", "m3")
WORKERS = {"a": 2, "b": 1}
ELECTION_SECONDS = 10  # MongoDB's default
NO_LIMIT = "100000/minute"
VERIFIERS = "c"
ISSUER = "https://demo.example"


class Bed:
    """The machines. Unless a test says otherwise, m1 is the primary, and all links are perfect.

    The wall clocks of resource servers for a are `clocks_apart` seconds behind, those for b as much ahead.
    """

    def __init__(
        self,
        folder: Path,
        *,
        own_clocks: Collection[str],
        election_seconds: float,
        languages: Collection[str],
        clocks_apart: float,
    ) -> None:
        self.network = Network([*MEMBERS, *WORKERS, *([VERIFIERS] if languages else [])])
        hosts = self.network.hosts
        self.members = [Member(hosts[name], folder, own_clocks=name in own_clocks) for name in MEMBERS]
        self.m1, self.m2, self.m3 = self.members
        self.services = [Service(hosts[name], workers) for name, workers in WORKERS.items()]
        self.a, self.b = self.services
        self.resource_servers = [
            ResourceServer(hosts[VERIFIERS], number, language, service)
            for number, (language, service) in enumerate(product(languages, self.services))
        ]
        self._folder = folder
        self._election_seconds = election_seconds
        self._clocks_apart = clocks_apart
        self._variables: dict[str, str] = {}

    @property
    def isolated(self) -> list[Host]:
        """The hosts of the smaller side of a partition: the primary and service a."""
        return [self.m1.host, self.a.host]

    @property
    def others(self) -> list[Host]:
        """The hosts of the larger side of a partition."""
        return [self.m2.host, self.m3.host, self.b.host]

    @property
    def followers(self) -> list[Host]:
        """The host of the resource servers."""
        return [self.network.hosts[VERIFIERS]]

    @property
    def mongo_uri(self) -> str:
        """The connection string."""
        members = ",".join(member.address for member in self.members)
        return f"mongodb://{members}/{DATABASE}?replicaSet={REPLICA_SET}"

    def start(self) -> None:
        """Start all machines and wait until they are ready."""
        self.network.open()
        for member in self.members:
            member.open()
        self._initiate()
        self._variables = environment(self.mongo_uri) | {
            "APP_ACCESS_TOKEN_SECONDS": "3600",  # no token expires during a test
            "APP_REFRESH_GRACE_SECONDS": "60",  # and an old refresh token has a successor all the time
            "APP_REGISTRATIONS_PER_ADDRESS": NO_LIMIT,
            "APP_LOGIN_FAILURES_PER_ADDRESS": NO_LIMIT,
        }
        if self.resource_servers:
            keys = {"APP_JWT_ALGORITHM": "EdDSA", "APP_ENCRYPTION_KEY": secrets.token_urlsafe(48)}
            self._variables |= keys | {"APP_PUBLIC_URL": ISSUER}
        self._open_services()
        for server in self.resource_servers:
            apart = -self._clocks_apart if server.service is self.a else self._clocks_apart
            server.open(ISSUER, {**os.environ, **wall_clock(apart)})
        self.settle()

    def _open_services(self) -> None:
        for service in self.services:
            service.open(self._variables)

    def _close_services(self) -> None:
        for service in self.services:
            service.close(self._folder / f"{service.name}.log")

    def restart(self) -> None:
        """Kill both services, and start them again."""
        self._close_services()
        self._open_services()

    def close(self) -> None:
        """End everything that was started. The logs stay in the folder."""
        with ExitStack() as closing:
            closing.callback(self.network.close)
            for member in self.members:
                closing.callback(member.close)
            closing.callback(self._close_services)
            for server in self.resource_servers:
                closing.callback(server.close, self._folder / f"{server.name}.log")

    def isolate(self) -> None:
        """Lose all packets between the smaller and the larger side."""
        self.network.cut(self.isolated, self.others)

    def isolate_with_two_primaries(self) -> None:
        """Reject all packets between the sides, and make m2 a primary before m1 steps down.

        The majority acknowledges writes at once, because m3 copies from m2 already.
        """
        self.m3.follow(self.m2)
        self.network.reject(self.isolated, self.others)
        time.sleep(1)
        self.make_primary(self.m2)

    def heal(self) -> None:
        """Resume all machines and make all links perfect again."""
        for member in self.members:
            member.resume()
        self.network.heal()

    def settle(self) -> None:
        """Heal, make m1 the primary, and wait until every member and every worker is up to date."""
        self.heal()
        until(self._replicates, "a write on m1 that all members acknowledge")
        self.wait_until_ready()
        for service in self.services:
            until(service.accepts_registrations, f"{service.name} writes to the database")

    def make_primary(self, member: Member) -> None:
        """Have a member elected."""
        until(lambda: member.is_primary() or member.step_up(), f"{member.name} is the primary")

    def wait_until_ready(self) -> None:
        """Wait until every worker of both services reports that it is ready, and every resource server is fresh."""
        for service in self.services:
            service.wait_until_ready()
        for server in self.resource_servers:
            until(server.is_fresh, f"{server.name} is fresh")

    @contextmanager
    def each_worker(self) -> Iterator[list[Worker]]:
        """Open a connection to every worker of both services."""
        with ExitStack() as opened:
            yield [worker for service in self.services for worker in opened.enter_context(service.each_worker())]

    @contextmanager
    def each_resource_server(self) -> Iterator[list[ResourceServer]]:
        """Return all resource servers."""
        yield self.resource_servers

    def _initiate(self) -> None:
        members = [{"_id": number, "host": member.address} for number, member in enumerate(self.members)]
        settings = {"electionTimeoutMillis": int(self._election_seconds * 1000)}
        self.m1.run("replSetInitiate", {"_id": REPLICA_SET, "members": members, "settings": settings})

    def _complete(self) -> bool:
        with suppress(PyMongoError):
            states = sorted(member["stateStr"] for member in self.m1.run("replSetGetStatus")["members"])
            return states == ["PRIMARY", "SECONDARY", "SECONDARY"]
        return False

    def _replicates(self) -> bool:
        """Return whether m1 is the primary that all members follow; ask for it, unless an election may be running."""
        if not self._complete() or not (self.m1.is_primary() or self.m1.step_up()):
            return False
        with suppress(PyMongoError):
            change = {"$inc": {"number": 1}}
            self.m1.update("probes", {"_id": 1}, change, acknowledged_by=len(self.members), upsert=True)
            return True
        return False


@contextmanager
def running_bed(bed: Bed) -> Iterator[Bed]:
    """Run the machines. They also end if the test fails, or if SIGINT or SIGTERM ends the tests."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bed.start()
        yield bed
        for service in bed.services:
            assert "Traceback" not in service.output, service.output
    finally:
        bed.close()
        signal.signal(signal.SIGTERM, before)
