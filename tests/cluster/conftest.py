"""Fixtures that run the topology of docker-compose.cluster.yml in processes, with its settings and haproxy.cfg."""

import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Server
from tests.processes import Command, until
from tests.serving import CHECKOUT, SANIC, WORKERS
from tools.local_mongo import ReplicaSet, free_port

CONFIGURATION = CHECKOUT / "deploy" / "haproxy.cfg"
NODES = 3
CLIENT_LIMITS = (
    "CLIENT_CONNECTIONS",
    "CLIENT_CONNECTIONS_PER_10S",
    "CLIENT_REQUESTS_PER_10S",
    "CLIENT_LOGINS_PER_10S",
)
READY_SECONDS = 0.5  # the maximum time until a stopping service reports that it is not ready


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder; skip them on systems without /proc."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="requires /proc and signals"))


class Node:
    """A service that keeps its address when it is restarted."""

    def __init__(self, number: int, settings: dict[str, str]) -> None:
        self.name = f"api{number}"
        self.address = f"127.0.0.1:{free_port()}"
        self._settings = settings
        self._command: Command | None = None

    @property
    def server(self) -> Server:
        """The service without the load balancer."""
        assert self._command, "the service has not been started"
        return Server(self._command, int(self.address.rpartition(":")[2]), self._settings["APP_MONGO_URI"])

    def start(self) -> None:
        """Start the service like the container image, and do not wait."""
        port = self.address.rpartition(":")[2]
        command = [SANIC, "app", f"--port={port}", f"--workers={WORKERS}", "--no-motd"]
        self._command = Command(command, cwd=CHECKOUT, env=self._settings)

    def wait(self) -> None:
        """Wait until its workers report that they are ready."""
        self.server.command.wait_for(f"{self.server.url}/health/ready")
        until(lambda: len(self.server.workers) == WORKERS, "every worker has started")
        self.server.wait_until_ready()

    def stop(self) -> str:
        """Send SIGTERM, wait for the end of the service, and return its output."""
        command = self.server.command
        command.send(signal.SIGTERM)
        until(lambda: not self.server.ready(), "503 from readiness", seconds=READY_SECONDS)
        assert command.wait() == 0, command.output
        output = command.output
        self.close()
        return output

    def kill(self) -> None:
        """Kill the main process, and wait until the other processes of the service have ended because of that."""
        self.server.command.send(signal.SIGKILL)
        until(lambda: not self.server.command.family(), "the end of the other processes")
        self.close()

    def close(self) -> None:
        """Kill all remaining processes of the service."""
        if self._command:
            self._command.close()
            self._command = None


class Cluster:
    """The databases, the services, and the load balancer to which clients connect."""

    def __init__(self, replica_set: ReplicaSet, nodes: list[Node], balancer: Server) -> None:
        self.replica_set = replica_set
        self.nodes = nodes
        self.balancer = balancer

    def count(self, node: Node, status: str) -> int:
        """Return how often the load balancer has logged the service as UP or DOWN."""
        return self.balancer.command.output.count(f"Server ready/{node.name} is {status}")

    @contextmanager
    def wait_for_status(self, node: Node, status: str) -> Iterator[None]:
        """Wait until the load balancer has logged a status change that happens in the context."""
        before = self.count(node, status)
        yield
        until(lambda: self.count(node, status) > before, f"{node.name} is {status} at the load balancer")

    def restart(self, node: Node) -> None:
        """Start a service that has ended, and wait until the load balancer sends it requests."""
        with self.wait_for_status(node, "UP"):
            node.start()
            node.wait()


def settings(mongo_uri: str) -> dict[str, str]:
    """Return the environment of the services and the load balancer."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    return others | {
        "APP_ENV": "production",
        "APP_JWT_SECRET_KEY": secrets.token_hex(32),
        "APP_JWT_ALGORITHM": "EdDSA",
        "APP_ENCRYPTION_KEY": secrets.token_hex(32),
        "APP_PUBLIC_URL": "https://api.example.com",
        "APP_FORWARDED_SECRET": secrets.token_hex(32),
        "APP_MONGO_URI": mongo_uri,
        "APP_REGISTRATIONS_PER_ADDRESS": "100000/minute",  # all clients of the tests have the same address
        "APP_LOGIN_FAILURES_PER_ADDRESS": "100000/minute",
        **dict.fromkeys(CLIENT_LIMITS, "1000000"),
    }


@contextmanager
def balancing(
    addresses: list[str], variables: dict[str, str], *, configuration: Path = CONFIGURATION
) -> Iterator[Server]:
    """Run the load balancer in front of the services with these addresses."""
    haproxy = shutil.which("haproxy")
    assert haproxy, "haproxy is not installed: apt-get install haproxy"
    port = free_port()
    services = {f"API{number + 1}": address for number, address in enumerate(addresses)}
    environment = variables | services | {"BIND": f"127.0.0.1:{port}"}
    command = Command([haproxy, "-db", "-f", str(configuration)], cwd=CHECKOUT, env=environment)
    try:
        command.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield Server(command, port, variables["APP_MONGO_URI"])
        command.send(signal.SIGUSR1)
        assert command.wait() == 0, command.output
    finally:
        command.close()


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run the cluster for all tests; a test that stops a part of it must start it again."""
    with ExitStack() as running:
        replica_set = ReplicaSet(tmp_path_factory.mktemp("mongodb"), NODES)
        running.callback(replica_set.stop)
        replica_set.start()
        variables = settings(replica_set.uri)
        nodes = [Node(number + 1, variables) for number in range(NODES)]
        for node in nodes:
            running.callback(node.close)
            node.start()
        for node in nodes:
            node.wait()
        balancer = running.enter_context(balancing([node.address for node in nodes], variables))
        yield Cluster(replica_set, nodes, balancer)
