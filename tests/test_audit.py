"""The audit trail: one line for each security event, and never a secret."""

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
    """Keeps the facts of every event."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[Document] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.facts.append(record.__dict__["facts"])

    def last(self) -> Document:
        """Return the latest."""
        return self.facts[-1]


@pytest.fixture
def trail() -> Iterator[Trail]:
    """Listen to the audit trail."""
    trail = Trail()
    logging.getLogger("audit").addHandler(trail)
    yield trail
    logging.getLogger("audit").removeHandler(trail)


def told(event: str, actor: Actor, session_id: str | None = None, **more: Any) -> Document:
    """Say what an event has to tell, apart from the request."""
    session = {"session_id": session_id} if session_id else {}
    return {"event": event, "user_id": actor.claims["sub"], **session, **more}


def shown(facts: Document) -> Document:
    """Return the facts without the request's, which every event has."""
    assert facts["address"] == "127.0.0.1"
    assert facts["request_id"]
    return {name: value for name, value in facts.items() if name not in ("address", "request_id")}


def test_a_line_for_each_request_where_it_is_wanted(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """With what was asked and answered, and nothing that the query or a header says."""
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


def test_the_life_of_an_account_is_written_down(
    service: Service, trail: Trail, alice: Actor, bob: Actor, database: Database[Document]
) -> None:
    sid = alice.claims["sid"]
    assert shown(trail.facts[0]) == told("registered", alice, sid)
    phone = alice.log_in()
    assert shown(trail.last()) == told("logged_in", alice, phone.claims["sid"])
    phone.refresh()
    assert shown(trail.last()) == told("refreshed", alice, phone.claims["sid"])
    phone.post("/auth/logout")
    assert shown(trail.last()) == told("logged_out", alice, phone.claims["sid"])
    service("POST", "/auth", json={"username": alice.username, "password": "wrong words"})
    assert shown(trail.last()) == told("login_failed", alice)
    body = {"current_password": PASSWORD, "new_password": NEW}
    alice.tokens = alice.post("/users/me/password", body).json()
    assert shown(trail.facts[-2]) == told("password_changed", alice)
    assert shown(trail.facts[-1]) == told("logged_in", alice, alice.claims["sid"])
    alice.post("/auth/logout-all")
    assert shown(trail.last()) == told("logged_out_everywhere", alice)
    database.users.update_one({"username": bob.username}, {"$set": {"access": Access.ADMIN}})
    admin, by = bob.log_in(), bob.claims["sub"]
    path, token = f"/users/{alice.claims['sub']}", admin.tokens["access_token"]
    service("PATCH", path, token=token, json={"access": "guest"})
    assert shown(trail.last()) == told("access_changed", alice, access="guest", by=by)
    service("PATCH", path, token=token, json={"disabled": True})
    assert shown(trail.last()) == told("disabled", alice, by=by)
    service("PATCH", path, token=token, json={"disabled": False})
    assert shown(trail.last()) == told("enabled", alice, by=by)
    service("DELETE", path, token=token)
    assert shown(trail.last()) == told("deleted", alice, by=by)
    database.users.update_one({"username": bob.username}, {"$set": {"access": Access.USER}})


def test_a_reused_token_is_written_down(trail: Trail, alice: Actor, database: Database[Document]) -> None:
    first = alice.tokens["refresh_token"]
    alice.refresh()
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"rotations": []}})
    assert alice.refresh(first).status_code == 401
    assert shown(trail.last()) == told("refresh_token_reused", alice, alice.claims["sid"])


LEAVING: list[tuple[str, str, str, Document, str]] = [
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
    ("event", "method", "path", "body", "step"), LEAVING, ids=[f"{one[1]} {one[2]}" for one in LEAVING]
)
def test_whoever_hangs_up_is_written_down_and_known_here_at_once(
    service: Service, trail: Trail, alice: Actor, event: str, method: str, path: str, body: Document, step: str
) -> None:
    """Leaving before the answer hides what the database has done neither from the trail nor from this worker."""
    store, name = step.split(".")

    request = service.send(method, path.format(**alice.claims), token=alice.tokens["access_token"], json=body or None)
    with Held(getattr(service.app.ctx, store), name, "after") as door:
        assert service.run(hang_up_at(door, request)) == []
    assert shown(trail.last())["event"] == event
    assert alice.secret_status == 401


def test_a_thief_who_hangs_up_is_written_down(
    service: Service, trail: Trail, alice: Actor, database: Database[Document]
) -> None:
    first = alice.tokens["refresh_token"]
    alice.refresh()
    database.sessions.update_one({"_id": alice.claims["sid"]}, {"$set": {"rotations": []}})

    with Held(service.app.ctx.sessions, "end", "after") as door:
        service.run(hang_up_at(door, service.send("POST", "/auth/refresh", json={"refresh_token": first})))
    assert shown(trail.last()) == told("refresh_token_reused", alice, alice.claims["sid"])
    assert alice.secret_status == 401


def test_throttling_is_written_down_and_unknown_names_are_not(service: Service, trail: Trail) -> None:
    """Somebody may type a password where the name belongs."""
    body = {"username": f"oops-my-password-{secrets.token_hex(4)}", "password": PASSWORD}
    for _ in range(11):
        service("POST", "/auth", json=body)
    assert shown(trail.facts[-2]) == {"event": "login_failed", "user_id": None}
    assert shown(trail.last()) == {"event": "login_throttled", "user_id": None}


def test_the_request_id_leads_from_the_answer_to_the_line(service: Service, trail: Trail) -> None:
    body = {"username": "nobody-for-the-request-id", "password": PASSWORD}
    answer = service("POST", "/auth", json=body, headers={"X-Request-ID": "trace-me"})
    assert answer.json()["request_id"] == trail.last()["request_id"] == "trace-me"


def test_a_secret_in_a_line_would_be_found() -> None:
    """Wherever in it: the whole run's lines are searched when it ends."""
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


def test_for_programs_a_line_is_one_object() -> None:
    options = configuration("json")["formatters"]["generic"]
    formatter = Json(options["fmt"], rename_fields=options["rename_fields"])
    line = formatter.format(record(user_id="u", note="two\nlines"))
    assert "\n" not in line
    parsed = json.loads(line)
    assert {"time", "level", "name", "message", "event", "user_id", "note"} == set(parsed)
    assert (parsed["message"], parsed["user_id"]) == ("an_event", "u")


def test_for_people_no_text_from_outside_begins_a_line_of_its_own() -> None:
    line = Text(configuration("text")["formatters"]["generic"]["fmt"]).format(record(note='a\r\nINFO forged "x"'))
    assert "\n" not in line
    assert "\r" not in line
    assert line.endswith(r'INFO an_event note="a\r\nINFO forged \"x\""')
