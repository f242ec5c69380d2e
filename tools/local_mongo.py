"""Run a command with a private MongoDB: python -m tools.local_mongo [--data DIR] [--replicas N] -- COMMAND [ARG...].

Python code can also import this module to start one mongod or a replica set.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.mongod import DATABASE, START_SECONDS, LocalMongo, MongoFailed, free_port
from tools.processes import run

__all__ = ["DATABASE", "LocalMongo", "MongoFailed", "ReplicaSet", "free_port", "local_mongo"]

REPLICA_SET = "rs0"
ELECTION_MILLISECONDS = 2000  # without a primary for this time, the members elect one; MongoDB's default is 10 seconds
ALREADY_INITIATED = 23  # MongoDB's error code


class ReplicaSet:
    """A replica set of local mongods, each with a data folder below `data`. They end with this process."""

    def __init__(self, data: Path, replicas: int) -> None:
        # Without this parameter, a stopping member waits 15 seconds for its clients to disconnect.
        options = ["--replSet", REPLICA_SET, "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        self.members = [LocalMongo(data / f"member{number}", options=options) for number in range(1, replicas + 1)]

    @property
    def uri(self) -> str:
        """The connection string, with all members and the database name."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/{DATABASE}?replicaSet={REPLICA_SET}"

    def start(self) -> None:
        """Start all members and wait for a primary. Raises MongoFailed."""
        for member in self.members:
            member.start()
        self._initiate()
        self.primary()

    def stop(self) -> None:
        """Shut down all running members."""
        for member in self.members:
            member.stop()

    def primary(self) -> LocalMongo:
        """Wait for the primary and return it. Raises MongoFailed after START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for member in self.members:
                if member.process and _run_command(member, "hello").get("isWritablePrimary"):
                    return member
            time.sleep(0.1)
        raise MongoFailed(f"the replica set has no primary after {START_SECONDS} s")

    def _initiate(self) -> None:
        config = {
            "_id": REPLICA_SET,
            "version": 1,
            "members": [{"_id": number, "host": member.address} for number, member in enumerate(self.members)],
            "settings": {"electionTimeoutMillis": ELECTION_MILLISECONDS},
        }
        if _run_command(self.members[0], "replSetInitiate", config).get("code") == ALREADY_INITIATED:
            # The stored configuration has the ports of the previous run.
            _run_command(self.members[0], "replSetReconfig", config, force=True)


def _run_command(member: LocalMongo, command: str, value: Any = 1, **options: Any) -> dict[str, Any]:
    """Return the member's reply, which can be an error; an empty one if the connection fails."""
    from pymongo import MongoClient  # imported here, so that a single server starts without this delay
    from pymongo.errors import ConnectionFailure

    with MongoClient[dict[str, Any]](member.uri, directConnection=True, timeoutMS=10_000) as client:
        try:
            return client.admin.command(command, value, check=False, **options)
        except ConnectionFailure:
            return {}


@contextmanager
def local_mongo(data: Path | None = None, *, replicas: int = 1) -> Iterator[LocalMongo | ReplicaSet]:
    """Run a MongoDB for the context. Without `data`, its data is deleted afterwards."""
    folder = data or Path(tempfile.mkdtemp(prefix="mongo-"))
    mongo = LocalMongo(folder) if replicas == 1 else ReplicaSet(folder, replicas)
    try:
        mongo.start()
        yield mongo
    finally:
        mongo.stop()
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Start MongoDB, run the command with APP_MONGO_URI set, stop MongoDB."""
    parser = argparse.ArgumentParser(prog="python -m tools.local_mongo", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the data in this folder; default: delete the data at the end")
    parser.add_argument("--replicas", type=int, default=1, help="the number of mongods; several form a replica set")
    parser.add_argument("command", nargs="+", help="the command to run, after --")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # until run() sets its own handlers
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with local_mongo(options.data, replicas=options.replicas) as mongo:
            return run(options.command, {**os.environ, "APP_MONGO_URI": mongo.uri})
    except MongoFailed as failed:
        print(f"local_mongo: {failed}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
