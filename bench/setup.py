"""What a run needs: the interpreter, the checkouts and the peers, each installed or built."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench import ROOT, checkouts, installs, interpreters, machine, runtimes
from bench.checkouts import LOCK, OURS, Checkout
from bench.interpreters import Interpreter
from bench.runtimes import Program, RuntimeMissing

PEERS_LOCK = Path(__file__).parent / "requirements.txt"
PYTHON_PEERS = ("sanic", "sanic-jwt", "blacksheep", "litestar", "fastapi", "flask", "flask-jwt-extended")
PYTHON_SERVERS = ("uvicorn", "gunicorn", "uvloop", "pyjwt")


@dataclass
class Peers:
    """The environment of the Python peers, the programs of the others, and why some of these are missing."""

    environment: Path
    programs: dict[str, Program] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, folder: Path) -> None:
        """Prepare a peer in another language. Without its runtime, the run continues without it."""
        try:
            self.programs[name] = runtimes.prepare(name, folder)
        except RuntimeMissing as reason:
            self.missing[name] = str(reason)
            print(f"bench: {name} is not measured: {reason}", file=sys.stderr)


@dataclass(frozen=True)
class Setup:
    """Everything that servers are started from."""

    interpreter: Interpreter
    today: Checkout
    earlier: Checkout | None
    peers: Peers

    def describe(self) -> dict[str, str]:
        """Return what was measured where, for the results."""
        return {
            "machine": machine.describe(),
            "Python": str(self.interpreter),
            "Python peers": _locked(PYTHON_PEERS + PYTHON_SERVERS),
            **{name: program.versions for name, program in self.peers.programs.items()},
            **{name: f"not measured: {reason}" for name, reason in self.peers.missing.items()},
        }


def prepare(folder: Path, *, python: str | None, commit: str | None) -> Setup:
    """Install and build what is missing; `folder` is deleted after the run. Raises BenchFailed."""
    interpreter = interpreters.examine(python or sys.executable)
    environments = _environments(python)
    today = Checkout(OURS, ROOT, installs.virtual_environment(environments / "service", ROOT / LOCK, interpreter.path))
    return Setup(
        interpreter,
        today,
        checkouts.extract(commit, folder, today, interpreter.path) if commit else None,
        _peers(folder, installs.virtual_environment(environments / "peers", PEERS_LOCK, interpreter.path)),
    )


def _environments(python: str | None) -> Path:
    """Return the folder of the service's and the peers' environments; another interpreter has its own.

    The service's has what an installation in production has: Sanic also imports its test client if that is installed.
    """
    folder = ROOT / os.environ.get("BENCH_VENV", ".venv-bench")
    return folder.with_name(f"{folder.name}-{interpreters.folder_name(python)}") if python else folder


def _peers(folder: Path, environment: Path) -> Peers:
    peers = Peers(environment)
    for name in runtimes.PREPARATIONS:
        peers.add(name, folder)
    return peers


def _locked(names: tuple[str, ...]) -> str:
    """Return the releases of packages in the peers' lock."""
    lines = PEERS_LOCK.read_text().splitlines()
    locked = dict(line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith((" ", "#")))
    return ", ".join(f"{name} {locked[name]}" for name in names)
