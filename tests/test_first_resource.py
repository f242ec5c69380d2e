"""docs/first-resource.md works as it stands: executed in a copy of the repository, with its checks and its suite."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.copies import copy_tree
from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs" / "first-resource.md").read_text()
BLOCKS = re.findall(r"^```(python|diff) (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NEW = {file for kind, file, _ in BLOCKS if kind == "python"}
CONCERNED = ["architecture", "deploy_page", "docs", "error_codes", "indexes", "readme", "security_page"]
EDITED = {file for kind, file, _ in BLOCKS if kind == "diff"}


def apply(text: str, diff: str) -> str:
    """Apply a block of added (+), removed (-) and unchanged lines, which must occur once."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines()]
    before = "\n".join(line for sign, line in lines if sign != "+")
    after = "\n".join(line for sign, line in lines if sign != "-")
    assert text.count(before) == 1, f"not exactly once:\n{before}"
    return text.replace(before, after)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Execute the page in a copy."""
    folder = copy_tree(tmp_path_factory.mktemp("copy"))
    for kind, file, block in BLOCKS:
        path = folder / file
        if kind == "python":
            assert not path.exists(), f"{file} is new"
            path.write_text(block)
        else:
            path.write_text(apply(path.read_text(), block))
    return folder


def run(folder: Path, *command: str) -> None:
    """Run a command in the copy, on this suite's MongoDB."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "VENV": sys.prefix}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-10_000:]


def test_the_page_needs_few_files() -> None:
    assert len(NEW) <= 3
    assert len(EDITED) <= 4


@pytest.mark.slow
def test_the_checks_pass(copy: Path) -> None:
    run(copy, "scripts/lint")


@pytest.mark.slow
def test_the_concerned_tests_pass(copy: Path) -> None:
    """The tests of the new resource, and those that look at every route, collection, file or page."""
    tests = [f"tests/test_{name}.py" for name in CONCERNED]
    tests += [name for name in NEW if name.startswith("tests/")]
    run(copy, sys.executable, "-m", "pytest", "-q", "tests/properties/test_api.py", "-k", "notes")
    run(copy, sys.executable, "-m", "pytest", "-q", *tests)
