"""The page docs/errors.md lists exactly the error codes of the service and its load balancer."""

import json
import re
from typing import Any

from app.http.codes import Code
from tests.serving import CHECKOUT
from tools import errors_page

PAGE = (CHECKOUT / "docs" / "errors.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \|", re.MULTILINE)
BALANCER = re.compile(r'{"type":"about:blank".*?}')


def listed(heading: str) -> list[tuple[str, int]]:
    """Return the codes and statuses of the table under a heading."""
    section = PAGE.split(f"\n## {heading}")[1].split("\n## ")[0]
    return [(code, int(status)) for code, status in ROW.findall(section)]


def test_the_page_lists_exactly_the_codes_of_the_service() -> None:
    assert sorted(listed("From the service")) == sorted((code.value, code.status) for code in Code)


def bodies(file: str) -> dict[str, dict[str, Any]]:
    """Return the error responses in a file of the load balancer, by code and without the request id."""
    found = [json.loads(body) for body in BALANCER.findall((CHECKOUT / "deploy" / file).read_text())]
    assert found
    assert all(body.pop("request_id") for body in found)
    return {body["code"]: body for body in found}


def test_the_page_lists_exactly_the_codes_of_the_load_balancer() -> None:
    found = {code: body["status"] for code, body in bodies("haproxy.cfg").items()}
    assert sorted(listed("From the load balancer")) == sorted(found.items())


def test_the_load_balancer_has_one_response_for_each_code() -> None:
    """Whether it could parse the request or not."""
    parsed = bodies("haproxy.cfg")
    assert all(parsed[code] == body for code, body in bodies("refusals.lua").items())


def test_the_load_balancer_gives_a_code_of_the_service_its_status() -> None:
    known = {code.value: code.status for code in Code}
    assert all(known.get(code, body["status"]) == body["status"] for code, body in bodies("haproxy.cfg").items())


def test_the_page_at_docs_errors_is_made_of_this_page() -> None:
    """Python -m tools.errors_page writes it."""
    assert errors_page.PAGE.read_text() == errors_page.render()
