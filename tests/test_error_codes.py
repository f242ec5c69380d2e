"""The page docs/errors.md lists exactly the error codes of the service and its load balancer."""

import re

from app.http.codes import Code
from tests.serving import CHECKOUT
from tools import errors_page

PAGE = (CHECKOUT / "docs" / "errors.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \|", re.MULTILINE)
BALANCER = re.compile(r'"status":(\d{3}),.*"code":"(\w+)"')


def listed(heading: str) -> list[tuple[str, int]]:
    """Return the codes and statuses of the table under a heading."""
    section = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0]
    return [(code, int(status)) for code, status in ROW.findall(section)]


def test_the_page_lists_exactly_the_codes_of_the_service() -> None:
    assert sorted(listed("From the service")) == sorted((code.value, code.status) for code in Code)


def test_the_page_lists_exactly_the_codes_of_the_load_balancer() -> None:
    found = BALANCER.findall((CHECKOUT / "deploy" / "haproxy.cfg").read_text())
    assert sorted(listed("From the load balancer")) == sorted((code, int(status)) for status, code in found)


def test_the_page_at_docs_errors_is_made_of_this_page() -> None:
    """Python -m tools.errors_page writes it."""
    assert errors_page.PAGE.read_text() == errors_page.render()
