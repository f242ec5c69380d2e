"""The Python interpreter of the servers: its version, and how it was built."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.commands import output
from bench.machine import BenchFailed

LOWEST = (3, 11)
QUESTION = """
import json, platform, sys, sysconfig
print(json.dumps({
    "name": platform.python_implementation() + " " + platform.python_version(),
    "version": sys.version_info[:2],
    "configured": sysconfig.get_config_var("CONFIG_ARGS") or "",
    "debian": "deb_system" in sysconfig.get_scheme_names(),
}))
"""
OPTIMIZATIONS = {"--enable-optimizations": "PGO", "--with-lto": "LTO"}


@dataclass(frozen=True)
class Interpreter:
    """An interpreter and its description."""

    path: str
    name: str
    build: str

    def __str__(self) -> str:
        return f"{self.name}, built {self.build}"


def examine(path: str = sys.executable) -> Interpreter:
    """Ask an interpreter what it is. Raises BenchFailed."""
    try:
        answer = json.loads(output(path, "-c", QUESTION))
    except (OSError, ValueError) as error:
        raise BenchFailed(f"{path} is not a Python interpreter: {error}") from error
    if tuple(answer["version"]) < LOWEST:
        raise BenchFailed(f"{path} is {answer['name']}; Python {'.'.join(map(str, LOWEST))} or later is needed")
    return Interpreter(path, answer["name"], _build(answer["configured"], debian=answer["debian"]))


def folder_name(path: str) -> str:
    """Return a name for the folder of an interpreter's environments, such as usr-bin-python3.11."""
    return str(Path(path).absolute()).strip("/").replace("/", "-")


def _build(configured: str, *, debian: bool) -> str:
    """Describe the optimizations of the build (`./configure --help`): PGO makes Python code noticeably faster."""
    if debian:  # debian/rules turns PGO on, and removes these options from sysconfig
        return "by Debian, with PGO"
    found = [name for option, name in OPTIMIZATIONS.items() if option in configured]
    return f"with {' and '.join(found)}" if found else f"without {' or '.join(OPTIMIZATIONS.values())}"
