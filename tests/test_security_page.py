"""The page docs/security.md refers only to tests and symbols that exist."""

import re

from app.openapi.operations import operation_of
from app.views import recovery, registration
from tests.routes import handlers
from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs" / "security.md").read_text()


def references() -> list[tuple[str, str]]:
    """Return the file and test of every reference.

    A bare `::test` belongs to the file of the previous reference.
    """
    found: list[tuple[str, str]] = []
    for file, test in re.findall(r"`([\w/]*\.py)?::(\w+)`", PAGE):
        found.append((file or found[-1][0], test))
    return found


def test_every_referenced_test_exists() -> None:
    assert len(references()) > 60
    for file, test in references():
        assert f"def {test}(" in (CHECKOUT / "tests" / file).read_text(), f"{file}::{test}"


def test_every_promise_refers_to_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| **", "| Promise"))]
    assert len(rows) > 30
    assert all("::test_" in row for row in rows)


def test_every_referenced_symbol_exists() -> None:
    code = "\n".join(path.read_text() for path in (CHECKOUT / "app").rglob("*.py"))
    prose = PAGE.split("## The promises")[0]
    for symbol in re.findall(r"`([A-Z]\w+)\.(\w+)`", prose):
        assert f"class {symbol[0]}" in code
        assert f"def {symbol[1]}(" in code


def test_the_page_lists_every_route_that_needs_a_recent_authentication() -> None:
    found: dict[str, set[str]] = {"fresh": set(), "fresh_with_factor": set()}
    for (method, path), handler in (handlers(registration) | handlers(recovery)).items():
        operation = operation_of(handler)
        if operation and operation.fresh:
            guard = "fresh_with_factor" if operation.with_factor else "fresh"
            named = re.sub(r"\{\w+\}", "<id>", path)
            found[guard].add(f"{method.upper()} {named}")
    listed = {
        guard: set(re.findall("`([A-Z]+ /[^`]*)`", line)) for guard, line in re.findall("\n- `(\\w+)`: (.*)", PAGE)
    }
    assert listed == found
