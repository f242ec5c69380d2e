"""Copies of the repository, for tests that change it as a user would."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.serving import CHECKOUT

LOCKS = ("requirements-run.txt", "requirements-dev.txt")


def copy_tree(folder: Path) -> Path:
    """Copy the files that git has, or would have."""
    # scripts/environment would install again into an environment of other locks, and the suite runs in this one.
    for lock in LOCKS:
        assert (Path(sys.prefix) / lock).read_bytes() == (CHECKOUT / lock).read_bytes(), "run scripts/test"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.check_output(listing, cwd=CHECKOUT, text=True).split("\0"):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    for command in (["init", "-q"], ["add", "-A"]):  # so that the copy can be copied
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)  # noqa: S607 - on PATH
    return folder
