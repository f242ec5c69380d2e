"""CPU time and memory of a server's processes, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """The state of one process at one moment."""

    pid: int
    cpu_seconds: float
    rss_bytes: int


def of_session(session: int) -> list[Process]:
    """Return all processes of a session. Each server is the leader of its own session."""
    numbered = (folder for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return [process for folder in numbered if (process := _read(folder, session))]


def cpu_seconds(session: int) -> float:
    """Return the CPU seconds that all processes of a session have used."""
    return sum(process.cpu_seconds for process in of_session(session))


def worker(session: int) -> Process:
    """Return the worker. After some load, it is the process with the most CPU time."""
    return max(of_session(session), key=lambda process: process.cpu_seconds)


def rss_bytes(session: int) -> int:
    """Return the RSS of all processes of a session."""
    return sum(process.rss_bytes for process in of_session(session))


def pss_bytes(session: int) -> int:
    """Return the PSS of all processes of a session: each counts its proportion of shared memory."""
    return sum(_pss(process.pid) for process in of_session(session))


def _read(folder: Path, session: int) -> Process | None:
    try:
        # The name in parentheses can contain any character, so count the fields after it (proc_pid_stat(5)).
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # the process has ended
        return None
    if int(fields[3]) != session:
        return None
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return Process(int(folder.name), ticks / TICKS_PER_SECOND, pages * PAGE_BYTES)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
