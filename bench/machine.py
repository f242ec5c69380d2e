"""The machine: which core does what, whether it has what the bench needs, and what it is called in the results."""

import os
import platform
import shutil
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1  # of the load, of MongoDB and of this process


class BenchFailed(Exception):
    """The run cannot go on; the message says why in one line."""


def check() -> None:
    """Make sure that there are two cores and the tools. Raises BenchFailed."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise BenchFailed("only Linux has what this measures with (/proc, taskset)")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchFailed(f"cores {SERVER_CORE} and {LOAD_CORE} are needed: one serves, the other makes the load")
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if not shutil.which(tool):
            raise BenchFailed(f"{tool} is missing: apt-get install {package}")


def pin_to_load_core() -> None:
    """Leave the server's core to the servers; what this process starts inherits it."""
    os.sched_setaffinity(0, {LOAD_CORE})


def describe() -> str:
    """Name processor, cores, system and Python in one line."""
    cores = os.cpu_count()
    system = f"{platform.system()} {platform.release()}"
    return f"{_processor()}, {cores} cores, {system}, {platform.python_implementation()} {platform.python_version()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
