"""The checkouts of this repository whose service is measured: the working tree, and an earlier commit beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import installs
from bench.commands import output
from bench.machine import BenchFailed

OURS = "this service"
LOCK = "requirements.txt"  # what the image installs


@dataclass(frozen=True)
class Checkout:
    """A checkout with the virtual environment of its service."""

    name: str  # of its service in the tables
    root: Path
    environment: Path

    def known(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of settings that this checkout has, because the service rejects unknown ones."""
        code = "".join(path.read_text() for path in (self.root / "config").rglob("*.py"))
        return {variable: value for variable, value in settings.items() if variable.removeprefix("APP_") in code}


def commit_of(revision: str) -> str:
    """Return the abbreviated commit of a revision. Raises BenchFailed."""
    try:
        return output("git", "rev-parse", "--short", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except BenchFailed as failed:
        raise BenchFailed(f"{revision} is not a commit of this repository") from failed


def extract(commit: str, folder: Path, today: Checkout, python: str) -> Checkout:
    """Extract a commit into the folder, and install its locked requirements there. Raises BenchFailed.

    It shares the environment of today's checkout if both have the same lock.
    """
    root, archive = folder / commit, folder / f"{commit}.tar"
    root.mkdir()
    output("git", "archive", f"--output={archive}", commit)
    output("tar", "-xf", archive, "-C", root)
    environment = today.environment
    if (root / LOCK).read_bytes() != (today.root / LOCK).read_bytes():
        environment = installs.virtual_environment(folder / f"{commit}-environment", root / LOCK, python)
    return Checkout(f"{today.name} at {commit}", root, environment)
