"""The topology of docker-compose.cluster.yml from processes: its settings, its load balancer's very configuration."""

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
from tests.faults.conftest import note as note  # also for the tests here
from tests.faults.conftest import pytest_terminal_summary as pytest_terminal_summary
from tests.processes import Command, until
from tests.serving import CHECKOUT, SANIC
from tools.local_mongo import ReplicaSet, free_port

CONFIGURATION = CHECKOUT / "deploy" / "haproxy.cfg"
NODES = 3
READY_SECONDS = 0.5  # after which a service that is told to stop says that it is not ready


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and skip it where there is no /proc."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="it is all about /proc and signals"))


class Node:
    """One of the services, which keeps its address when it is started again."""

    def __init__(self, number: int, settings: dict[str, str]) -> None:
        self.name = f"api{number}"
        self.address = f"127.0.0.1:{free_port()}"
        self._settings = settings
        self._command: Command | None = None

    @property
    def server(self) -> Server:
        """How to ask it without the load balancer."""
        assert self._command, "it was not started"
        return Server(self._command, int(self.address.rpartition(":")[2]), self._settings["APP_MONGO_URI"])

    def start(self) -> None:
        """Start it, as the image does; wait for nothing."""
        port = self.address.rpartition(":")[2]
        command = [SANIC, "app", f"--port={port}", "--workers=2", "--no-motd"]
        self._command = Command(command, cwd=CHECKOUT, env=self._settings)

    def wait(self) -> None:
        """Wait until it is ready, as the first that is asked says."""
        self.server.command.wait_for(f"{self.server.url}/health/ready")

    def stop(self) -> str:
        """Tell it to stop, wait for its end, and return all that it wrote."""
        command = self.server.command
        command.send(signal.SIGTERM)
        until(lambda: not self.server.ready(), "word of the stop", seconds=READY_SECONDS)
        assert command.wait() == 0, command.output
        output = command.output
        self.close()
        return output

    def kill(self) -> None:
        """End its main process as a crash does, and all the others by that."""
        self.server.command.send(signal.SIGKILL)
        until(lambda: not self.server.command.family(), "the end of the others")
        self.close()

    def close(self) -> None:
        """Leave nothing of it behind."""
        if self._command:
            self._command.close()
            self._command = None


class Cluster:
    """Everything, and the load balancer as the clients' way in."""

    def __init__(self, replica_set: ReplicaSet, nodes: list[Node], balancer: Server) -> None:
        self.replica_set = replica_set
        self.nodes = nodes
        self.balancer = balancer

    def count(self, node: Node, what: str) -> int:
        """Tell how often the load balancer has found the service UP or DOWN."""
        return self.balancer.command.output.count(f"Server ready/{node.name} is {what}")

    @contextmanager
    def noticing(self, node: Node, what: str) -> Iterator[None]:
        """Wait until the load balancer has noticed what happens inside."""
        before = self.count(node, what)
        yield
        until(lambda: self.count(node, what) > before, f"the load balancer finds {node.name} {what}")

    def restart(self, node: Node) -> None:
        """Start a service that has ended, and wait until it has its share of the load."""
        with self.noticing(node, "UP"):
            node.start()
            node.wait()


def settings(mongo_uri: str) -> dict[str, str]:
    """Return the variables of every service and of the load balancer."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    return others | {
        "APP_ENV": "production",
        "APP_JWT_SECRET_KEY": secrets.token_hex(32),
        "APP_FORWARDED_SECRET": secrets.token_hex(32),
        "APP_MONGO_URI": mongo_uri,
        "APP_REGISTRATIONS_PER_ADDRESS": "100000/minute",  # everybody here has the same address
        "APP_LOGIN_FAILURES_PER_ADDRESS": "100000/minute",
    }


@contextmanager
def balancing(nodes: list[Node], variables: dict[str, str]) -> Iterator[Server]:
    """Run the load balancer in front of the services."""
    haproxy = shutil.which("haproxy")
    assert haproxy, "There is no haproxy: apt-get install haproxy"
    port = free_port()
    addresses = {node.name.upper(): node.address for node in nodes}
    environment = variables | addresses | {"BIND": f"127.0.0.1:{port}"}
    command = Command([haproxy, "-db", "-f", str(CONFIGURATION)], cwd=CHECKOUT, env=environment)
    try:
        command.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield Server(command, port, variables["APP_MONGO_URI"])
        command.send(signal.SIGUSR1)
        assert command.wait() == 0, command.output
    finally:
        command.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run everything for the whole module; tests that take something away put it back."""
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
        yield Cluster(replica_set, nodes, running.enter_context(balancing(nodes, variables)))
