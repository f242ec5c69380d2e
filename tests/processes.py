"""Run commands in sessions of their own, find their processes in /proc, and kill them at the end."""

import asyncio
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

TIMEOUT_SECONDS = 120.0  # enough for a busy machine with `nice -n 19`; a passing test takes much less
POLL_SECONDS = 0.02


def until(condition: Callable[[], object], what: str, seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until the condition is true. Fails with the text `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Process:
    """A process, identified by its pid and start time, because a pid can be used again."""

    pid: int
    started: int  # clock ticks after the boot of the machine
    parent: int = field(compare=False)
    session: int = field(compare=False)
    command: str = field(compare=False)

    def runs(self) -> bool:
        """Return whether the process has not ended."""
        return read_process(self.pid) == self


def read_process(pid: int) -> Process | None:
    """Return a process, or None if it does not exist or is a zombie (proc_pid_stat(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, _group, session, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else Process(pid, int(rest[15]), int(parent), int(session), command)


def all_processes() -> set[Process]:
    """Return all processes of the machine."""
    found = (read_process(int(folder.name)) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return {process for process in found if process}


def descendants(pid: int) -> set[Process]:
    """Return all direct and indirect children of the process."""
    others, found, parents = all_processes(), set[Process](), {pid}
    while parents:
        children = {process for process in others if process.parent in parents}
        found |= children
        parents = {process.pid for process in children}
    return found


def connection_owner(processes: set[Process], port: int, client_port: int) -> Process | None:
    """Return the process that has accepted the connection of a client (proc_net_tcp(5)).

    Both ports belong to the loopback address of their network namespace. Returns None if no process of the set has the
    connection.
    """
    ends = f":{port:04X}", f":{client_port:04X}"
    for process in processes:
        with suppress(OSError):  # it has ended
            rows = [line.split() for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]]
            sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1])}
            if sockets & open_files(process):
                return process
    return None


def open_files(process: Process) -> set[str]:
    """Return the names of the files and sockets that a process has open. Raises OSError if it has ended."""
    found = set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            found.add(str(file.readlink()))
    return found


class Terminal:
    """A pseudo-terminal with a keyboard; its output is written to a file."""

    def __init__(self, output: IO[bytes]) -> None:
        self._keyboard, self._tty = pty.openpty()
        self._output = output
        self._thread = threading.Thread(target=self._copy_output, daemon=True)
        self._thread.start()

    def attached(self, command: Sequence[str]) -> list[str]:
        """Return the command with this terminal as its controlling terminal.

        A terminal becomes the controlling terminal of a session when the first process of the session opens it.
        """
        return ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(self._tty), *command]

    def type(self, keys: bytes) -> None:
        """Send keys to the terminal."""
        os.write(self._keyboard, keys)

    def close(self) -> None:
        """Close the terminal and wait for the rest of its output."""
        os.close(self._tty)
        self._thread.join()
        os.close(self._keyboard)

    def _copy_output(self) -> None:
        with suppress(OSError):  # EIO when no process has the terminal open any more
            while text := os.read(self._keyboard, 65536):
                self._output.write(text)


class Command:
    """A running command, its output, and all processes that it has started."""

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
        """The output of the command so far."""
        return Path(self._file.name).read_text(errors="replace").replace("\r\n", "\n")

    @property
    def exit_code(self) -> int | None:
        """The exit code, the negative signal number if a signal ended the command, or None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait for the end of the command and return its exit code."""
        until(lambda: self.exit_code is not None, f"the end of {self._process.args!r} with the output:\n{self.output}")
        return self._process.wait()

    def wait_for(self, url: str) -> None:
        """Wait until the URL returns a success status. Fails immediately if the command ends."""

        def succeeds() -> bool:
            assert self.exit_code is None, self.output
            with suppress(httpx.TransportError):
                return client.get(url).is_success
            return False

        with httpx.Client(trust_env=False) as client:
            until(succeeds, f"a success response from {url}")
        self.family()

    def family(self) -> set[Process]:
        """Return the running processes of the command.

        These are its descendants, the processes of its session, and those that earlier calls have found.
        """
        in_session = {process for process in all_processes() if process.session == self.pid}
        self._known = descendants(self.pid) | in_session | self._known
        return {process for process in self._known if process.runs()}

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process of the command itself."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Kill all remaining processes and delete the output."""
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
    """Run a command; all its processes end with the context."""
    started = Command(command, cwd=cwd, env=env, terminal=terminal)
    try:
        yield started
    finally:
        started.close()
