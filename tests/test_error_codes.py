"""The page on errors has every code that the service and its load balancer answer with, and no other."""

import ast
import re
from collections.abc import Iterator

from app.http.problems import FRAMEWORK
from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs" / "errors.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \|", re.MULTILINE)
STATUS = {"unauthorized": 401, "token_refused": 401, "conflict": 409, "unavailable": 503}
BALANCER = re.compile(r'"status":(\d{3}),.*"code":"(\w+)"')


def told(heading: str) -> list[tuple[str, int]]:
    """Return the codes and statuses of the table under a heading."""
    section = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0]
    return [(code, int(status)) for code, status in ROW.findall(section)]


def raised() -> Iterator[tuple[str, int]]:
    """Find the codes in the calls that make a Problem."""
    for path in (CHECKOUT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            if called == "Problem":
                status, code = map(literal, node.args[:2])
            elif called in STATUS:
                status, code = STATUS[called], literal(node.args[0])
            else:
                continue
            if isinstance(code, str) and isinstance(status, int):
                yield code, status
            else:
                assert path.name == "problems.py", f"{path}:{node.lineno}: the code is no literal"


def literal(node: ast.expr) -> object:
    """Return the value of a literal, and None of all else."""
    return node.value if isinstance(node, ast.Constant) else None


def test_every_code_of_the_service_is_told_and_no_other() -> None:
    framework = {(code, status) for status, (code, _) in FRAMEWORK.items()}
    assert len(framework) > 5
    assert sorted(told("From the service")) == sorted({*raised(), *framework})


def test_every_code_of_the_load_balancer_is_told_and_no_other() -> None:
    found = BALANCER.findall((CHECKOUT / "deploy" / "haproxy.cfg").read_text())
    assert sorted(told("From the load balancer")) == sorted((code, int(status)) for status, code in found)
