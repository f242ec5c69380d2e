"""Run the commands that prepare a benchmark."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import ROOT
from bench.machine import BenchFailed
from tools.processes import die_with_parent


def output(*command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output. Raises BenchFailed with the last line of its errors."""
    completed = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    if completed.returncode:
        raise BenchFailed(f"{_name(command)} failed: {_last_line(completed.stderr or completed.stdout)}")
    return completed.stdout.strip()


def _name(command: Sequence[str | Path]) -> str:
    return " ".join([Path(command[0]).name, *map(str, command[1:3])])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
