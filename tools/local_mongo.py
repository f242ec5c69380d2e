"""Run a command with a private MongoDB.

python -m tools.local_mongo [--data DIR [--attach]] [--replicas N] -- COMMAND [ARG...]

It is a replica set, of one member unless --replicas says otherwise. While it runs, the file `uri` in its data folder
has its connection string. Python code can also import this module.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tools.mongod import DATABASE, REPLICA_SET, START_SECONDS, DataInUse, Mongod, MongoFailed, free_port
from tools.processes import run

__all__ = ["DATABASE", "LocalMongo", "MongoFailed", "ReplicaSet", "free_port", "local_mongo"]

ELECTION_MILLISECONDS = 2000  # without a primary for this time, the members elect one; MongoDB's default is 10 seconds
ALREADY_INITIATED = 23  # MongoDB's error code
POLL_SECONDS = 0.02
URI = "uri"  # the file that has the connection string


class LocalMongo(Mongod):
    """A replica set of one member."""

    def start(self) -> None:
        """Start mongod and wait until it is the primary. Raises MongoFailed."""
        super().start()
        self.elect()

    def elect(self) -> None:
        """Make mongod, which accepts connections, the primary of its replica set. Raises MongoFailed."""
        _initiate([self])
        _primary([self])
        _write(self.data / URI, self.uri)

    def stop(self) -> None:
        """Shut down mongod. Does nothing if it does not run."""
        if self.process:
            (self.data / URI).unlink(missing_ok=True)
        super().stop()


class ReplicaSet:
    """A replica set of several local mongods, each with a data folder below `data`. They end with this process.

    `options` are command line options of each mongod.
    """

    def __init__(self, data: Path, replicas: int, options: Sequence[str] = ()) -> None:
        self.members = [Mongod(data / f"member{number}", options=options) for number in range(1, replicas + 1)]
        self._uri_file = data / URI

    @property
    def uri(self) -> str:
        """The connection string, with all members and the database name."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/{DATABASE}?replicaSet={REPLICA_SET}"

    def start(self) -> None:
        """Start all members and wait for a primary. Raises MongoFailed."""
        for member in self.members:
            member.start()
        _initiate(self.members)
        self.primary()
        _write(self._uri_file, self.uri)

    def stop(self) -> None:
        """Shut down all running members."""
        if any(member.process for member in self.members):
            self._uri_file.unlink(missing_ok=True)
        for member in self.members:
            member.stop()

    def primary(self) -> Mongod:
        """Wait for the primary and return it. Raises MongoFailed after START_SECONDS."""
        return _primary(self.members)


def _initiate(members: Sequence[Mongod]) -> None:
    """Make the members a replica set, or tell an existing set their addresses."""
    config = {
        "_id": REPLICA_SET,
        "version": 1,
        "members": [{"_id": number, "host": member.address} for number, member in enumerate(members)],
        "settings": {"electionTimeoutMillis": ELECTION_MILLISECONDS},
    }
    with closing(_Admin(members[0])) as admin:
        if _is_member(admin("hello")):
            return
        if admin("replSetInitiate", config).get("code") == ALREADY_INITIATED:
            admin("replSetReconfig", config, force=True)  # the stored configuration has the ports of an earlier run


def _is_member(hello: dict[str, Any]) -> bool:
    """Return whether a mongod has found itself in the configuration of its set; after a start that takes a moment."""
    return bool(hello.get("me")) and hello.get("me") in hello.get("hosts", [])


def _primary(members: Sequence[Mongod]) -> Mongod:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for member in members:
            with closing(_Admin(member)) as admin:
                if member.process and admin("hello").get("isWritablePrimary"):
                    return member
        time.sleep(POLL_SECONDS)
    raise MongoFailed(f"the replica set has no primary after {START_SECONDS} s")


class _Admin:
    """A direct connection to one member, for administrative commands."""

    def __init__(self, member: Mongod) -> None:
        from pymongo import MongoClient  # imported here, because it delays the start of mongod

        self._client = MongoClient[dict[str, Any]](member.uri, directConnection=True, timeoutMS=10_000)

    def __call__(self, command: str, value: Any = 1, **options: Any) -> dict[str, Any]:
        """Return the member's reply, which can be an error; an empty one if the connection fails."""
        from pymongo.errors import ConnectionFailure

        try:
            return self._client.admin.command(command, value, check=False, **options)
        except ConnectionFailure:
            return {}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _write(path: Path, text: str) -> None:
    path.write_text(f"{text}\n")


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
    parser.add_argument("--replicas", type=int, default=1, help="the number of members of the replica set")
    parser.add_argument("--attach", action="store_true", help="use the MongoDB that already uses the data, if any")
    parser.add_argument("command", nargs="+", help="the command to run, after --")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # until run() sets its own handlers
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with local_mongo(options.data, replicas=options.replicas) as mongo:
            return _run_with(options.command, mongo.uri)
    except DataInUse as in_use:
        uri = options.data / URI
        if options.attach and uri.exists():
            return _run_with(options.command, uri.read_text().strip())
        failed: MongoFailed = in_use
    except MongoFailed as other:
        failed = other
    print(f"local_mongo: {failed}", file=sys.stderr)
    return 1


def _run_with(command: Sequence[str], uri: str) -> int:
    return run(command, {**os.environ, "APP_MONGO_URI": uri})


if __name__ == "__main__":
    sys.exit(main())
