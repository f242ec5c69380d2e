"""The page on security names tests that exist."""

import re

from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs" / "security.md").read_text()


def named() -> list[tuple[str, str]]:
    """List file and test of every reference; a bare `::test` belongs to the file named before it."""
    references: list[tuple[str, str]] = []
    for file, test in re.findall(r"`([\w/]*\.py)?::(\w+)`", PAGE):
        references.append((file or references[-1][0], test))
    return references


def test_every_test_that_is_named_exists() -> None:
    assert len(named()) > 60
    for file, test in named():
        assert f"def {test}(" in (CHECKOUT / "tests" / file).read_text(), f"{file}::{test}"


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| **", "| Promise"))]
    assert len(rows) > 30
    assert all("::test_" in row for row in rows)


def test_every_symbol_that_is_named_exists() -> None:
    code = "\n".join(path.read_text() for path in (CHECKOUT / "app").rglob("*.py"))
    prose = PAGE.split("## The promises")[0]
    for symbol in re.findall(r"`([A-Z]\w+)\.(\w+)`", prose):
        assert f"class {symbol[0]}" in code
        assert f"def {symbol[1]}(" in code
