"""Metrics in the format of Prometheus."""

import re
import secrets

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import EVENTS, SECONDS
from config import Config
from tests.conftest import PASSWORD, Actor, Service
from tests.processes import until
from tests.serving import CHECKOUT

DURATION = "http_request_duration_seconds"


def counted(service: Service, name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    response = service("GET", "/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@pytest.mark.parametrize(
    ("method", "path", "labels"),
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
    service: Service, method: str, path: str, labels: dict[str, str]
) -> None:
    """Values that a client invents do not become labels, because their number would be unlimited."""
    before = counted(service, f"{DURATION}_count", **labels)
    for _ in range(3):
        service(method, path)
    assert counted(service, f"{DURATION}_count", **labels) == before + 3


def test_request_durations_are_measured_in_seconds(service: Service, alice: Actor) -> None:
    labels = {"method": "POST", "route": "/auth", "status": "200"}
    shortest = {**labels, "le": str(SECONDS[0])}
    before = counted(service, f"{DURATION}_sum", **labels), counted(service, f"{DURATION}_bucket", **shortest)
    alice.log_in()
    seconds = counted(service, f"{DURATION}_sum", **labels) - before[0]
    assert 0.001 < seconds < 5, "hashing takes some hundredths of a second"
    assert counted(service, f"{DURATION}_bucket", **shortest) == before[1]


def test_security_events_and_database_commands_are_counted(service: Service, alice: Actor) -> None:
    names = ("logged_in", "login_failed", "logged_out")
    before = {name: counted(service, "security_events_total", event=name) for name in names}
    commands = counted(service, "mongo_commands_total", outcome="succeeded")
    service("POST", "/auth", json={"username": alice.username, "password": f"not {PASSWORD}"})
    alice.log_in().post("/auth/logout")
    for name in names:
        assert counted(service, "security_events_total", event=name) == before[name] + 1
    assert counted(service, "mongo_commands_total", outcome="succeeded") > commands + 5


def test_every_audit_event_has_a_counter_from_the_start() -> None:
    code = "".join(path.read_text() for path in (CHECKOUT / "app").rglob("*.py"))
    written = re.findall(r'audit(?:_repeated)?\("(\w+)"(?: if .* else "(\w+)")?', code)
    assert {event for pair in written for event in pair if event} == set(EVENTS)


@pytest.mark.parametrize("file", ["alerts.yml", "dashboard.json"])
def test_alerts_and_dashboard_query_existing_metrics(service: Service, file: str) -> None:
    """They also use only existing security events."""
    text = (CHECKOUT / "deploy" / "monitoring" / file).read_text()
    families = [family.name for family in text_string_to_metric_families(service("GET", "/metrics").text)]
    prefixes = "http_request|security_events|mongo_commands|password_hashing|revocations|connections"
    used = re.findall(rf"\b((?:{prefixes})_\w+)", text)
    assert len(set(used)) >= 5
    assert not [name for name in used if not name.startswith(tuple(families))]
    assert set(re.findall(r'event=\\?"(\w+)', text)) <= set(EVENTS)


def test_the_state_of_revocations_and_hashing_is_measured(service: Service, alice: Actor) -> None:
    alice.post("/auth/logout")
    known = len(service.app.ctx.revocations)
    until(lambda: counted(service, "revocations_known") >= known, "the next measurement")
    assert counted(service, "revocations_age_seconds") < 10
    assert counted(service, "password_hashing_waiting") == 0


def test_a_worker_that_has_just_started_tells_how_much_it_knows(config: Config) -> None:
    """It has made a proven look before its first response. Until the next one, it would otherwise be infinitely old."""
    with Service(config) as service:
        assert counted(service, "revocations_age_seconds") < 10


def status(service: Service, token: str | bytes | None) -> int:
    """Return the status of the metrics for a token."""
    return service("GET", "/metrics", headers={"Authorization": token} if token is not None else {}).status_code


def test_metrics_can_be_protected_by_a_token(config: Config, resident: Actor) -> None:
    """As Prometheus sends it: authorization, with credentials or credentials_file."""
    required = secrets.token_urlsafe(32)
    with Service(config.model_copy(update={"METRICS_TOKEN": required})) as service:
        for token in (f"Bearer {required}", f"bearer  {required}"):
            assert status(service, token) == 200
        access_token = resident.tokens["access_token"]
        guesses: list[str | bytes | None] = [
            None,
            "",
            "Bearer",
            b"Bearer \xff\xe9",
            required,
            f"Basic {required}",
            f"Bearer {required}x",
            f"Bearer {required[:-1]}",
            f"Bearer {required.lower()}",
            f"Bearer {access_token}",
        ]
        assert {status(service, guess) for guess in guesses} == {401}
        response = service("GET", "/metrics", headers={"Authorization": "Bearer x"})
        assert response.json()["code"] == "unauthorized"
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert service("HEAD", "/metrics").status_code == 401
        assert service("GET", "/health/ready").status_code == 200


def test_metrics_can_be_switched_off(config: Config) -> None:
    with Service(config.model_copy(update={"METRICS": False})) as service:
        for method in ("GET", "HEAD"):
            assert service(method, "/metrics").status_code == 404
        assert service("GET", "/health/ready").status_code == 200


def test_prometheus_can_present_the_token() -> None:
    """The shipped configuration shows where."""
    shown = (CHECKOUT / "deploy" / "monitoring" / "prometheus.yml").read_text()
    assert "authorization: {credentials_file: " in shown
