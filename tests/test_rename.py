"""A clone gets its own name from one command, and keeps every rule of the original."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.product import NAME, SLUG
from tests.copies import copy_tree
from tests.serving import CHECKOUT

NEW = "acme_api"
# The files whose tests depend on the name, and one of each layer.
FAST = ["access_tokens", "architecture", "config", "deploy_page", "deployment", "docs", "readme", "registration"]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy, on this suite's MongoDB."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**others, "PYTHONPATH": str(folder), "VENV": sys.prefix}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rename a copy."""
    folder = copy_tree(tmp_path_factory.mktemp("copy"))
    result = run(folder, "scripts/rename", NEW)
    assert result.returncode == 0, result.stderr
    return folder


def occurrences(folder: Path) -> set[str]:
    """Return the files that contain the original's name."""
    found = run(folder, "git", "grep", "-lE", f"{NAME}|{SLUG}")
    return set(found.stdout.split())


def test_the_name_stands_in_one_place_of_the_code() -> None:
    files = {
        path for path in occurrences(CHECKOUT) if re.match(r"(app|config|tools|tests|bench|examples|scripts)/.*", path)
    }
    generated = {path for path in files if path.startswith("bench/results")}
    assert files - generated == {"config/product.py", "scripts/image", "scripts/secrets"}


@pytest.mark.slow
def test_no_other_file_keeps_the_old_name(renamed: Path) -> None:
    assert occurrences(renamed) == {"LICENSE", "docs/upgrading.md"}


@pytest.mark.slow
def test_the_renamed_service_passes_its_checks_and_the_fast_part_of_its_suite(renamed: Path) -> None:
    lint = run(renamed, "scripts/lint")
    assert lint.returncode == 0, lint.stdout + lint.stderr
    tests = [f"tests/test_{name}.py" for name in FAST]
    result = run(renamed, sys.executable, "-m", "pytest", "-q", "--show-capture=no", *tests)
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]


@pytest.mark.slow
def test_what_a_merge_brings_back_is_renamed_again(renamed: Path) -> None:
    changelog = renamed / "CHANGELOG.md"
    changelog.write_text(changelog.read_text() + f"- {NAME} and {SLUG}\n")
    assert run(renamed, "scripts/rename", "--again").returncode == 0
    assert changelog.read_text().endswith("- acme_api and acme-api\n")


@pytest.mark.parametrize("name", ["", "Acme", "acme-api", "1acme", "acme__api", "a" * 41, NAME, "acme api"])
def test_a_name_of_another_form_is_rejected(name: str) -> None:
    result = run(CHECKOUT, "scripts/rename", name)
    assert result.returncode == 2
    assert "usage: scripts/rename" in result.stderr
