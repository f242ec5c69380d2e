"""Generate load with wrk, and read its output."""

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
from bench.results import Requests
from bench.servers import Server
from tools.processes import die_with_parent

SCRIPT = Path(__file__).parent / "load.lua"
TIMEOUT_SECONDS = 10
ERRORS = ("status", "connect", "read", "write", "timeout")


@dataclass(frozen=True)
class Load:
    """The requests to send and the number of connections; load.lua describes the kinds of lines in the file."""

    path: str
    seconds: int
    method: Literal["GET", "POST"] = "GET"
    lines: Literal["none", "token", "body", "refresh"] = "none"
    file: Path | None = None
    connections: int = 64
    pause_milliseconds: int = 0  # of each connection, between two requests
    cores: str = str(LOAD_CORE)


@dataclass(frozen=True)
class Outcome:
    """The result of a load."""

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
    """Start wrk and yield its process. It ends with the context at the latest."""
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
    """Wait for wrk and return the result. Raises BenchFailed if any request was not successful."""
    output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        raise BenchFailed(f"wrk failed on {server.name}: {(output.strip() or 'no output').splitlines()[-1]}")
    result = json.loads(lines[-1])
    if errors := {name: result[name] for name in ERRORS if result[name]}:
        raise BenchFailed(f"{server.name} {load.path}: some requests were not successful: {errors}")
    return Outcome(result["requests"], result["microseconds"] / 1e6, result["p50"] / 1000, result["p99"] / 1000)


def apply(server: Server, load: Load) -> Outcome:
    """Run the load on the server and wait until it ends. Raises BenchFailed."""
    with started(server, load) as process:
        return outcome(server, load, process)


def record(server: Server, load: Load, requests: Requests) -> float:
    """Run the load, add its figures to those of other rounds, and return the share of a core that the server used."""
    before = server.cpu_seconds()
    result = apply(server, load)
    used = server.cpu_seconds() - before
    requests.rate.append(result.rate)
    requests.cpu.append(used / result.requests * 1e6)
    return used / result.seconds
