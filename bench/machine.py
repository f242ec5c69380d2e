"""The machine: the use of its cores, the required tools, and its description in the results."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1  # for the load, MongoDB and this process
BOTH_CORES = f"{SERVER_CORE},{LOAD_CORE}"


class BenchFailed(Exception):
    """The run cannot continue; the message gives the reason in one line."""


def check() -> None:
    """Check that two cores and the tools are available. Raises BenchFailed."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise BenchFailed("the bench needs Linux, for /proc and taskset")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchFailed(f"cores {SERVER_CORE} and {LOAD_CORE} are needed, one for the server and one for the load")
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if not shutil.which(tool):
            raise BenchFailed(f"{tool} is missing: apt-get install {package}")


def pin_to_load_core() -> None:
    """Pin this process and its children to the load core, to reserve the other core for the servers."""
    os.sched_setaffinity(0, {LOAD_CORE})


@contextmanager
def on_both_cores() -> Iterator[None]:
    """Let the children that start in this context use both cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE, LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> str:
    """Return the processor, cores and kernel in one line."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
