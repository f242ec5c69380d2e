"""Start commands as sessions of their own, follow their processes in /proc, and leave none behind."""

import os
import pty
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

PATIENCE_SECONDS = 20.0  # for a busy machine; nothing takes so long when all is well
STEP_SECONDS = 0.02


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the condition holds, and fail with `what` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(STEP_SECONDS)


@dataclass(frozen=True)
class Process:
    """One process; its start tells it from a later one with the same pid."""

    pid: int
    started: int  # clock ticks after the machine's start
    parent: int = field(compare=False)
    session: int = field(compare=False)
    command: str = field(compare=False)

    def runs(self) -> bool:
        """Tell whether it has not ended yet."""
        return look(self.pid) == self


def look(pid: int) -> Process | None:
    """Return what the kernel says of a process, None if there is none or only its exit code (proc_pid_stat(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, _group, session, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else Process(pid, int(rest[15]), int(parent), int(session), command)


def everything() -> set[Process]:
    """Return every process of the machine."""
    found = (look(int(folder.name)) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return {process for process in found if process}


def descendants(pid: int) -> set[Process]:
    """Return the process's children, their children, and so on."""
    others, found, parents = everything(), set[Process](), {pid}
    while parents:
        children = {process for process in others if process.parent in parents}
        found |= children
        parents = {process.pid for process in children}
    return found


def holder(processes: set[Process], port: int, client_port: int) -> Process | None:
    """Return which of the processes has accepted the client's connection to the loopback port (proc_net_tcp(5))."""
    ends = f":{port:04X}", f":{client_port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1])}
    for process in processes:
        with suppress(FileNotFoundError):  # a file closed while we look
            if any(str(file.readlink()) in sockets for file in Path(f"/proc/{process.pid}/fd").iterdir()):
                return process
    return None


class Terminal:
    """A terminal that shows everything to a file, and a keyboard before it."""

    def __init__(self, screen: IO[bytes]) -> None:
        self._keyboard, self._tty = pty.openpty()
        self._screen = screen
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def attached(self, command: Sequence[str]) -> list[str]:
        """Return the command as the terminal's job: the first process of a session owns the terminal that it opens."""
        return ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(self._tty), *command]

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._keyboard, keys)

    def close(self) -> None:
        """Switch it off."""
        os.close(self._tty)
        self._thread.join()
        os.close(self._keyboard)

    def _show(self) -> None:
        with suppress(OSError):  # EIO, once nobody holds the terminal
            while text := os.read(self._keyboard, 65536):
                self._screen.write(text)


class Command:
    """A command that runs, all that it wrote, and all processes that it ever had."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, terminal: bool = False
    ) -> None:
        self._file = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        self.terminal = Terminal(self._file.file) if terminal else None
        self._process = subprocess.Popen(
            self.terminal.attached(command) if self.terminal else command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._known: set[Process] = set()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return Path(self._file.name).read_text(errors="replace").replace("\r\n", "\n")

    @property
    def exit_code(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None as long as it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        until(lambda: self.exit_code is not None, f"end of {self._process.args!r}, which wrote:\n{self.output}")
        return self._process.wait()

    def wait_for(self, url: str) -> None:
        """Wait until the address answers with success. Fails at once if the command ends before."""

        def answers() -> bool:
            assert self.exit_code is None, self.output
            with suppress(httpx.TransportError):
                return client.get(url).is_success
            return False

        with httpx.Client(trust_env=False) as client:
            until(answers, f"an answer from {url}")
        self.family()

    def family(self) -> set[Process]:
        """Return every process of it that runs: those below it, in its session, or seen here earlier."""
        in_session = {process for process in everything() if process.session == self.pid}
        self._known = descendants(self.pid) | in_session | self._known
        return {process for process in self._known if process.runs()}

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command's own process."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Kill whatever is left of it."""
        for process in self.family():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._process.wait()
        until(lambda: not self.family(), "the end of killed processes")
        if self.terminal:
            self.terminal.close()
        self._file.close()


@contextmanager
def running(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, terminal: bool = False
) -> Iterator[Command]:
    """Run a command; nothing of it goes on afterwards."""
    started = Command(command, cwd=cwd, env=env, terminal=terminal)
    try:
        yield started
    finally:
        started.close()
