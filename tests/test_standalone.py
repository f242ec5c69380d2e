"""A standalone MongoDB is refused at the start, by name, with the command that makes it a replica set."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.database.failures import not_replica_set
from config.product import NAME
from tests.processes import running, until
from tests.serving import started
from tools.local_mongo import free_port
from tools.mongod import mongod_path

ADVICE = "start mongod with --replSet rs0, then run mongosh --eval 'rs.initiate()'"


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[str]:
    """Run a mongod that is not a member of a replica set, and return its URI."""
    port = free_port()
    command = [str(mongod_path()), "--dbpath", str(tmp_path), "--port", str(port), "--bind_ip", "127.0.0.1"]
    with running([*command, "--nounixsocket"], cwd=tmp_path) as server:
        until(lambda: "Waiting for connections" in server.output, "a mongod that accepts connections")
        yield f"mongodb://127.0.0.1:{port}/{NAME}"


@pytest.mark.parametrize("options", [(), ("--single-process",)], ids=["workers", "single process"])
def test_the_start_is_refused_in_one_message(standalone: str, options: tuple[str, ...]) -> None:
    with started(standalone, *options) as (service, _):
        assert service.wait() == 1
        assert "MONGO_URI: the server is a standalone server, but must be a replica set" in service.output
        assert ADVICE in service.output
        assert "Traceback" not in service.output


def test_a_standalone_server_that_appears_later_makes_the_service_not_ready(tmp_path: Path) -> None:
    """The log says why; the same message as at the start."""
    port = free_port()
    uri = f"mongodb://127.0.0.1:{port}/{NAME}"
    with started(uri, "--single-process", variables={"APP_MONGO_TIMEOUT_SECONDS": "1"}) as (service, service_port):
        url = f"http://127.0.0.1:{service_port}"
        service.wait_for(f"{url}/health/live")
        command = [str(mongod_path()), "--dbpath", str(tmp_path), "--port", str(port), "--bind_ip", "127.0.0.1"]
        with running([*command, "--nounixsocket"], cwd=tmp_path):

            def refused_with_reason() -> bool:
                assert httpx.get(f"{url}/health/ready", trust_env=False).status_code == 503
                return ADVICE in service.output

            until(refused_with_reason, "the reason in the log")
        service.send(signal.SIGTERM)
        assert service.wait() == 0


def test_a_sharded_cluster_is_refused() -> None:
    reason = not_replica_set({"msg": "isdbgrid", "ok": 1.0})
    assert reason == "the server is a mongos of a sharded cluster, but must be a replica set"
    assert not_replica_set({"setName": "rs0", "isWritablePrimary": True}) is None
