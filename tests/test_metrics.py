"""What is counted, as Prometheus reads it."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import EVENTS, SECONDS
from tests.conftest import PASSWORD, Actor, Service
from tests.processes import until
from tests.serving import CHECKOUT

DURATION = "http_request_duration_seconds"


def counted(service: Service, sample: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    response = service("GET", "/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    samples = [one for family in families for one in family.samples if one.name == sample]
    return sum(one.value for one in samples if labels.items() <= one.labels.items())


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", "/tests/hello", {"method": "GET", "route": "/tests/hello", "status": "200"}),
        ("GET", "/tests/secret", {"method": "GET", "route": "/tests/secret", "status": "401"}),
        ("GET", f"/users/{24 * '0'}", {"method": "GET", "route": "/users/<user_id>", "status": "401"}),
        ("GET", "/no/such/path", {"method": "GET", "route": "none", "status": "404"}),
        ("BREW", "/tests/hello", {"method": "other", "route": "none", "status": "405"}),
        ("HEAD", "/health/live", {"method": "HEAD", "route": "/health/live", "status": "200"}),
    ],
)
def test_requests_are_counted_by_route_and_status(
    service: Service, method: str, path: str, told: dict[str, str]
) -> None:
    """Nothing that a client makes up becomes a label: there would be no end of them."""
    before = counted(service, f"{DURATION}_count", **told)
    for _ in range(3):
        service(method, path)
    assert counted(service, f"{DURATION}_count", **told) == before + 3


def test_how_long_a_request_takes_is_told(service: Service, alice: Actor) -> None:
    told = {"method": "POST", "route": "/auth", "status": "200"}
    shortest = {**told, "le": str(SECONDS[0])}
    before = counted(service, f"{DURATION}_sum", **told), counted(service, f"{DURATION}_bucket", **shortest)
    alice.log_in()
    took = counted(service, f"{DURATION}_sum", **told) - before[0]
    assert 0.001 < took < 5, "seconds, of which hashing takes some hundredths"
    assert counted(service, f"{DURATION}_bucket", **shortest) == before[1]


def test_security_events_and_the_databases_answers_are_counted(service: Service, alice: Actor) -> None:
    names = ("logged_in", "login_failed", "logged_out")
    before = {name: counted(service, "security_events_total", event=name) for name in names}
    commands = counted(service, "mongo_commands_total", outcome="succeeded")
    service("POST", "/auth", json={"username": alice.username, "password": f"not {PASSWORD}"})
    alice.log_in().post("/auth/logout")
    for name in names:
        assert counted(service, "security_events_total", event=name) == before[name] + 1
    assert counted(service, "mongo_commands_total", outcome="succeeded") > commands + 5


def test_every_event_that_can_happen_is_there_from_the_start() -> None:
    code = "".join(path.read_text() for path in (CHECKOUT / "app").rglob("*.py"))
    written = re.findall(r'audit\("(\w+)"(?: if .* else "(\w+)")?', code)
    assert {event for pair in written for event in pair if event} == set(EVENTS)


@pytest.mark.parametrize("file", ["alerts.yml", "dashboard.json"])
def test_alerts_and_dashboard_ask_for_what_is_counted(service: Service, file: str) -> None:
    """And for routes, labels and events that are there."""
    text = (CHECKOUT / "deploy" / "monitoring" / file).read_text()
    families = [family.name for family in text_string_to_metric_families(service("GET", "/metrics").text)]
    ours = re.findall(r"\b((?:http_request|security_events|mongo_commands|password_hashing|revocations)_\w+)", text)
    assert len(set(ours)) >= 5
    assert not [name for name in ours if not name.startswith(tuple(families))]
    assert set(re.findall(r'event=\\?"(\w+)', text)) <= set(EVENTS)


def test_the_state_of_the_revocations_is_told(service: Service, alice: Actor) -> None:
    alice.post("/auth/logout")
    known = len(service.app.ctx.revocations)
    until(lambda: counted(service, "revocations_known") >= known, "the next measuring")
    assert counted(service, "revocations_age_seconds") < 10
    assert counted(service, "password_hashing_waiting") == 0
