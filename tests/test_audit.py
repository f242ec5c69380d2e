"""The audit trail: one log line for each security event, without secrets."""

import json
import logging
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.database import Database

from app.logs import Json, Text, configuration
from app.models.users import Access
from config import Config
from tests.conftest import PASSWORD, Actor, Document, Leaks, Service
from tests.interleaving import Held, hang_up_at

NEW = "a quite different sentence"


class Trail(logging.Handler):
    """A log handler that stores the facts of every event."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[Document] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the facts of an event."""
        self.facts.append(record.__dict__["facts"])

    def latest(self) -> Document:
        """Return the facts of the latest event."""
        return self.facts[-1]


@pytest.fixture
def trail() -> Iterator[Trail]:
    """Record the audit trail."""
    trail = Trail()
    logging.getLogger("audit").addHandler(trail)
    yield trail
    logging.getLogger("audit").removeHandler(trail)


def expected(event: str, actor: Actor, session_id: str | None = None, **more: Any) -> Document:
    """Return the expected facts of an event, without those of the request."""
    session = {"session_id": session_id} if session_id else {}
    return {"event": event, "user_id": actor.claims["sub"], **session, **more}


def without_request(facts: Document) -> Document:
    """Return the facts without those of the request, which every event must have."""
    assert facts["address"] == "127.0.0.1"
    assert facts["request_id"]
    return {name: value for name, value in facts.items() if name not in ("address", "request_id")}


def test_the_access_log_has_one_line_per_request_when_enabled(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """It has request and response data, but nothing from the query or from headers other than the request id."""
    with Service(config.model_copy(update={"ACCESS_LOG": True})) as service, caplog.at_level("INFO", "sanic.access"):
        service("GET", "/tests/secret?access_token=abc", token="abc", headers={"X-Request-ID": "known"})
        service("POST", "/nowhere", headers={"X-Request-ID": "other"})
    lines = [record for record in caplog.records if record.name == "sanic.access"]
    assert [{**line.__dict__["facts"], "milliseconds": None} for line in lines] == [
        {
            "method": method,
            "path": path,
            "status": status,
            "milliseconds": None,
            "address": "127.0.0.1",
            "request_id": request_id,
        }
        for method, path, status, request_id in (
            ("GET", "/tests/secret", 401, "known"),
            ("POST", "/nowhere", 404, "other"),
        )
    ]
    assert all(0 <= line.__dict__["facts"]["milliseconds"] < 5000 for line in lines)
    assert "abc" not in " ".join(Json().format(line) for line in lines)


def test_account_events_are_audited(
    service: Service, trail: Trail, alice: Actor, bob: Actor, database: Database[Document]
) -> None:
    sid = alice.claims["sid"]
    assert without_request(trail.facts[0]) == expected("registered", alice, sid)
    phone = alice.log_in()
    assert without_request(trail.latest()) == expected("logged_in", alice, phone.claims["sid"], amr="pwd")
    phone.refresh()
    assert without_request(trail.latest()) == expected("refreshed", alice, phone.claims["sid"])
    phone.post("/auth/logout")
    assert without_request(trail.latest()) == expected("logged_out", alice, phone.claims["sid"])
    service("POST", "/auth", json={"username": alice.username, "password": "wrong words"})
    assert without_request(trail.latest()) == expected("login_failed", alice)
    body = {"current_password": PASSWORD, "new_password": NEW}
    alice.tokens = alice.post("/users/me/password", body).json()
    assert without_request(trail.facts[-2]) == expected("password_changed", alice)
    assert without_request(trail.facts[-1]) == expected("logged_in", alice, alice.claims["sid"], amr="pwd")
    alice.post("/auth/logout-all")
    assert without_request(trail.latest()) == expected("logged_out_everywhere", alice)
    database.users.update_one({"username": bob.username}, {"$set": {"access": Access.ADMIN}})
    admin, by = bob.log_in(), bob.claims["sub"]
    path, token = f"/users/{alice.claims['sub']}", admin.tokens["access_token"]
    service("PATCH", path, token=token, json={"access": "guest"})
    assert without_request(trail.latest()) == expected("access_changed", alice, access="guest", by=by)
    service("PATCH", path, token=token, json={"disabled": True})
    assert without_request(trail.latest()) == expected("disabled", alice, by=by)
    service("PATCH", path, token=token, json={"disabled": False})
    assert without_request(trail.latest()) == expected("enabled", alice, by=by)
    service("DELETE", path, token=token)
    assert without_request(trail.latest()) == expected("deleted", alice, by=by)
    database.users.update_one({"username": bob.username}, {"$set": {"access": Access.USER}})


def test_a_reused_token_is_audited(trail: Trail, alice: Actor, database: Database[Document]) -> None:
    first = alice.tokens["refresh_token"]
    alice.refresh()
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"rotations": []}})
    assert alice.refresh(first).status_code == 401
    assert without_request(trail.latest()) == expected("refresh_token_reused", alice, alice.claims["sid"])


ENDING_REQUESTS: list[tuple[str, str, str, Document, str]] = [
    ("logged_out", "POST", "/auth/logout", {}, "sessions.end"),
    ("logged_out", "DELETE", "/auth/sessions/{sid}", {}, "sessions.end"),
    ("logged_out_everywhere", "POST", "/auth/logout-all", {}, "users.start_generation"),
    ("deleted", "POST", "/users/me/delete", {"current_password": PASSWORD}, "users.start_deletion"),
    (
        "password_changed",
        "POST",
        "/users/me/password",
        {"current_password": PASSWORD, "new_password": NEW},
        "users.start_generation",
    ),
]


@pytest.mark.parametrize(
    ("event", "method", "path", "body", "step"), ENDING_REQUESTS, ids=[f"{one[1]} {one[2]}" for one in ENDING_REQUESTS]
)
def test_ended_sessions_are_audited_and_revoked_although_the_client_disconnects(
    service: Service, trail: Trail, alice: Actor, event: str, method: str, path: str, body: Document, step: str
) -> None:
    """The database has ended the session, so the event is audited and this worker rejects the token."""
    store, name = step.split(".")

    request = service.send(method, path.format(**alice.claims), token=alice.tokens["access_token"], json=body or None)
    with Held(getattr(service.app.ctx, store), name, "after") as held:
        assert service.run(hang_up_at(held, request)) == []
    assert without_request(trail.latest())["event"] == event
    assert alice.secret_status == 401


def test_a_reused_token_is_audited_although_the_client_disconnects(
    service: Service, trail: Trail, alice: Actor, database: Database[Document]
) -> None:
    first = alice.tokens["refresh_token"]
    alice.refresh()
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"rotations": []}})

    with Held(service.app.ctx.sessions, "end", "after") as held:
        service.run(hang_up_at(held, service.send("POST", "/auth/refresh", json={"refresh_token": first})))
    assert without_request(trail.latest()) == expected("refresh_token_reused", alice, alice.claims["sid"])
    assert alice.secret_status == 401


def test_throttling_is_audited_without_unknown_usernames(service: Service, trail: Trail) -> None:
    """A user may type the password into the field of the username."""
    body = {"username": f"oops-my-password-{secrets.token_hex(4)}", "password": PASSWORD}
    for _ in range(11):
        service("POST", "/auth", json=body)
    assert without_request(trail.facts[-2]) == {"event": "login_failed", "user_id": None}
    assert without_request(trail.latest()) == {"event": "login_throttled", "user_id": None}


def test_the_audit_event_has_the_request_id_of_the_response(service: Service, trail: Trail) -> None:
    body = {"username": "nobody-for-the-request-id", "password": PASSWORD}
    response = service("POST", "/auth", json=body, headers={"X-Request-ID": "trace-me"})
    assert response.json()["request_id"] == trail.latest()["request_id"] == "trace-me"


def test_the_leak_check_finds_a_secret_in_a_log_line() -> None:
    """In any part of the line: at the end of the test run, all its lines are searched."""
    for level, message, extra in (
        (logging.INFO, "a secret text of some length", {}),
        (logging.ERROR, "beside", {"facts": {"note": "a secret text of some length"}}),
    ):
        leaks = Leaks()
        leaks.remember({"password": "a secret text of some length"})
        entry = logging.LogRecord("any", level, "", 0, message, None, None)
        entry.__dict__.update(extra)
        leaks.handle(entry)
        assert len(leaks.found()) == 1


def record(**facts: Any) -> logging.LogRecord:
    entry = logging.LogRecord("audit", logging.INFO, "", 0, "an_event", None, None)
    entry.__dict__["facts"] = {"event": "an_event", **facts}
    return entry


def test_a_line_in_json_format_is_one_object() -> None:
    options = configuration("json")["formatters"]["generic"]
    formatter = Json(options["fmt"], rename_fields=options["rename_fields"])
    line = formatter.format(record(user_id="u", note="two\nlines"))
    assert "\n" not in line
    parsed = json.loads(line)
    assert {"time", "level", "name", "message", "event", "user_id", "note"} == set(parsed)
    assert (parsed["message"], parsed["user_id"]) == ("an_event", "u")


def test_a_line_in_text_format_escapes_line_breaks() -> None:
    """Text from a client cannot start a line of its own (log injection, CWE-117)."""
    line = Text(configuration("text")["formatters"]["generic"]["fmt"]).format(record(note='a\r\nINFO forged "x"'))
    assert "\n" not in line
    assert "\r" not in line
    assert line.endswith(r'INFO an_event note="a\r\nINFO forged \"x\""')
