"""Make load with wrk, and read what it says."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from bench.machine import LOAD_CORE, BenchFailed
from bench.servers import Server
from tools.processes import die_with_parent

SCRIPT = Path(__file__).parent / "load.lua"
TIMEOUT_SECONDS = 10
ERRORS = ("status", "connect", "read", "write", "timeout")


@dataclass(frozen=True)
class Load:
    """Which requests, and how many at a time; see load.lua for what the lines of the file can be."""

    path: str
    seconds: int
    method: Literal["GET", "POST"] = "GET"
    lines: Literal["none", "token", "body", "refresh"] = "none"
    file: Path | None = None
    connections: int = 64
    pause_milliseconds: int = 0  # of each connection between two requests
    cores: str = str(LOAD_CORE)


@dataclass(frozen=True)
class Outcome:
    """What became of a load."""

    requests: int
    seconds: float
    p50_milliseconds: float
    p99_milliseconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


@contextmanager
def started(server: Server, load: Load) -> Iterator[subprocess.Popen[str]]:
    """Give a wrk at work; it ends with the context at the latest."""
    wrk = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", f"--timeout={TIMEOUT_SECONDS}s"]
    arguments = [load.method, load.path, load.lines, str(load.file or ""), str(load.pause_milliseconds)]
    process = subprocess.Popen(
        ["taskset", "-c", load.cores, *wrk, "-s", SCRIPT, server.url, "--", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def outcome(server: Server, load: Load, process: subprocess.Popen[str]) -> Outcome:
    """Wait for wrk's end. Raises BenchFailed if a single request was not answered with success."""
    output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        raise BenchFailed(f"wrk failed on {server.name}: {(output.strip() or 'it said nothing').splitlines()[-1]}")
    said = json.loads(lines[-1])
    if errors := {name: said[name] for name in ERRORS if said[name]}:
        raise BenchFailed(f"{server.name} {load.path}: not every request was answered with success: {errors}")
    return Outcome(said["requests"], said["microseconds"] / 1e6, said["p50"] / 1000, said["p99"] / 1000)


def apply(server: Server, load: Load) -> Outcome:
    """Put the load on the server and wait for its end. Raises BenchFailed."""
    with started(server, load) as process:
        return outcome(server, load, process)
