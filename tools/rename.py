"""Rename the product in all files of the repository: python -m tools.rename NAME, or --again after a merge."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from config.product import NAME

ROOT = Path(__file__).parent.parent
ORIGINAL = "sanic api demo".replace(" ", "_")  # merges of later versions bring it back; spelled so that it stays here
FORM = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # of a Python package, a database and, with hyphens, an image
KEPT = {"LICENSE", "docs/upgrading.md"}  # the authors of the original, and where later versions come from


def files() -> list[Path]:
    """Return the files that git has, or would have."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in names if name and name not in KEPT and (ROOT / name).is_file()]


def rename(path: Path, old: str, new: str) -> bool:
    """Replace a name in a text file and return whether it was there."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    renamed = text.replace(old, new).replace(old.replace("_", "-"), new.replace("_", "-"))
    if renamed != text:
        path.write_text(renamed, encoding="utf-8")
    return renamed != text


def _rename_all(old: str, new: str) -> int:
    return sum(rename(path, old, new) for path in files())


def main() -> int:
    """Rename everything and say what remains to be done."""
    parser = argparse.ArgumentParser(prog="scripts/rename", description="Give the service another name.")
    parser.add_argument("name", nargs="?", help="the new name, such as acme_api")
    parser.add_argument("--again", action="store_true", help="replace the original's name, which a merge brought back")
    options = parser.parse_args()
    if options.again and not options.name:
        print(f"{ORIGINAL} was replaced by {NAME} in {_rename_all(ORIGINAL, NAME)} files.")
        return 0
    new = options.name or ""
    if not FORM.fullmatch(new) or len(new) > 40:
        parser.error("a name has lower-case letters, digits and single underscores, at most 40, such as acme_api")
    if new == NAME:
        parser.error(f"the name is {NAME} already")
    print(f"{NAME} is now {new}, in {_rename_all(NAME, new)} files.")
    print(
        "Tokens of the old name are no longer valid, and the data is in another database: rename before the first user."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
