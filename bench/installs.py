"""Install locked dependencies into folders that git ignores, again only after a lock has changed."""

import filecmp
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from bench import ROOT
from bench.commands import output
from bench.machine import BenchFailed


def virtual_environment(folder: Path, lock: Path, python: str = sys.executable) -> Path:
    """Return a virtual environment of the interpreter with the lock's packages. Raises BenchFailed."""
    executable = folder / "bin" / "python"
    if _is_current(folder, lock) and _runs(executable):
        return folder
    _announce(lock, folder)
    shutil.rmtree(folder, ignore_errors=True)
    output(python, "-m", "venv", "--without-pip", folder)
    options = ("--quiet", "--disable-pip-version-check", "--require-hashes")
    output(*_pip(), "--python", executable, "install", *options, "-r", lock)
    _finish(folder, lock)
    return folder


def node_modules(project: Path) -> None:
    """Install the npm packages that a project's lock names. Raises BenchFailed."""
    folder, lock = project / "node_modules", project / "package-lock.json"
    if _is_current(folder, lock):
        return
    _announce(lock, folder)
    output("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", cwd=project)
    _finish(folder, lock)


def _pip() -> list[str]:
    """Return the pip of this environment, which may have none, or that of the system's interpreter."""
    own = importlib.util.find_spec("pip")
    return [sys.executable if own else os.environ.get("PYTHON", "python3"), "-m", "pip"]


def _is_current(folder: Path, lock: Path) -> bool:
    installed = folder / lock.name
    return installed.exists() and filecmp.cmp(installed, lock, shallow=False)


def _runs(executable: Path) -> bool:
    """Return whether the interpreter starts, which it no longer does after its removal from the system."""
    try:
        output(executable, "-c", "")
    except (BenchFailed, OSError):
        return False
    return True


def _announce(lock: Path, folder: Path) -> None:
    place = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder.name
    print(f"bench: installing {lock.name} into {place}; this can take minutes", file=sys.stderr, flush=True)


def _finish(folder: Path, lock: Path) -> None:
    (folder / ".gitignore").write_text("*\n")  # for git and the linters
    shutil.copy(lock, folder)
