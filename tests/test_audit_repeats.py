"""Events that clients repeat at will do not flood the audit trail (log flooding, audit trail eviction)."""

from pathlib import Path

import pytest

from app.logs import audit as trail_module
from app.logs.audit import LINES_PER_NETWORK, WINDOW_SECONDS, Repeats
from config import Config, environments
from tests.conftest import PASSWORD, Actor, Document, Service


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of new, empty windows."""
    clock = Clock()
    monkeypatch.setattr(trail_module, "repeats", Repeats(clock))
    return clock


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """Record the audit trail."""
    lines: list[Document] = []
    monkeypatch.setattr(trail_module, "_write", lines.append)
    return lines


def test_repeated_events_are_one_line_and_a_number(clock: Clock, lines: list[Document]) -> None:
    for _ in range(2635):
        trail_module.audit_repeated("login_throttled", of="u1", user_id="u1")
    assert lines == [{"event": "login_throttled", "user_id": "u1"}]
    clock.now += WINDOW_SECONDS
    trail_module.flush()
    assert lines[1:] == [{"event": "login_throttled", "user_id": "u1", "repeated": 2634}]
    trail_module.audit_repeated("login_throttled", of="u1", user_id="u1")
    assert len(lines) == 3, "a new window has begun"


def test_accounts_are_counted_apart_up_to_a_number_of_lines_per_network(clock: Clock, lines: list[Document]) -> None:
    for number in range(LINES_PER_NETWORK + 500):
        trail_module.audit_repeated("login_throttled", of=str(number), user_id=str(number))
    assert [line["user_id"] for line in lines] == [str(number) for number in range(LINES_PER_NETWORK)]
    clock.now += WINDOW_SECONDS
    trail_module.flush()
    assert lines[LINES_PER_NETWORK:] == [{"event": "login_throttled", "network": "", "repeated": 500}]
    assert not trail_module.repeats._windows
    assert not trail_module.repeats._lines


def test_the_memory_of_windows_is_bounded(clock: Clock, lines: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves it early is logged, not lost."""
    monkeypatch.setattr(trail_module, "WINDOWS", 10)
    for number in range(30):
        for _ in range(2):
            trail_module.audit_repeated("refreshed", of=str(number), session_id=str(number))
    assert clock.now == 1000
    assert len(trail_module.repeats._windows) <= 11
    trail_module.flush(everything=True)
    assert sum(line.get("repeated", 1) for line in lines) == 60


def test_refused_logins_refreshes_and_registrations_are_in_the_trail_once(
    config: Config, alice: Actor, clock: Clock, lines: list[Document]
) -> None:
    """So are requests without the right to make them, and refreshes of one session."""
    with Service(config.model_copy(update={"REGISTRATIONS_PER_ADDRESS": "1/hour"})) as service:
        token = alice.tokens["access_token"]
        body = {"username": alice.username, "password": f"not {PASSWORD}"}
        for _ in range(14):
            service("POST", "/auth", json=body)
            service("POST", "/auth/refresh", json={"refresh_token": "x" * 60})
            service("POST", "/users/registration", json={**body, "username": "another-name"})
            service("GET", "/users", token=token)
            alice.refresh()
        seen = [line["event"] for line in lines if line["event"] not in ("login_failed", "registered")]
        assert sorted(seen) == [
            "forbidden",
            "login_throttled",
            "refresh_rejected",
            "refreshed",
            "registration_throttled",
        ]
    assert clock.now == 1000
    repeated = {line["event"]: line["repeated"] for line in lines if "repeated" in line}
    assert repeated["forbidden"] == 13, "the rest is logged when the service stops"


def test_the_trail_can_have_a_file_of_its_own(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    with Service(config.model_copy(update={"AUDIT_FILE": str(file)})) as service:
        response = service("POST", "/auth", json={"username": "nobody", "password": PASSWORD})
        file.rename(tmp_path / "audit.log.1")
        service("POST", "/auth", json={"username": "nobody", "password": PASSWORD})
    assert response.headers["x-request-id"] in (tmp_path / "audit.log.1").read_text()
    assert file.read_text().count("login_failed") == 1, "the file was rotated"


def test_a_file_of_the_trail_that_cannot_be_written_stops_the_start(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "audit.log"
    with pytest.raises(ValueError, match=r"AUDIT_FILE[\s\S]*cannot be written \(No such file or directory\)"):
        environments.TestingConfig(JWT_SECRET_KEY=config.JWT_SECRET_KEY, AUDIT_FILE=str(file))
