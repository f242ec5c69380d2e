"""The page on running the service: what it tells to do is done here, and what it names exists."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pymongo.database import Database as Collections

from app.commands import Commands
from app.database.client import Database
from app.models import attempts, sessions, users
from app.security.access_tokens import CLOCK_SKEW_SECONDS, AccessTokens, InvalidAccessToken
from app.security.authentication import TOKENS_REMEMBERED
from app.security.refresh_tokens import InvalidRefreshToken, RefreshTokens
from app.server.supervisor import CLOSING_SECONDS
from config import Config
from config.environments import ProductionConfig
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs" / "deploy.md").read_text()
CONTRIBUTING = (CHECKOUT / "CONTRIBUTING.md").read_text()
NO_SETTINGS = {"APP_ENV", "GET", "POST", "SIGTERM"}


def rows(heading: str, columns: int) -> list[list[str]]:
    """Return the rows of the tables with so many columns under a heading, without their heads."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    bodies = [[cell.strip() for cell in line] for line in lines if len(line) == columns]
    start = next(number for number, row in enumerate(bodies) if set("".join(row)) == {"-"})
    return bodies[start + 1 :]


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`(?:APP_)?([A-Z][A-Z_]{2,})`", PAGE)) - {name.removeprefix("APP_") for name in NO_SETTINGS}
    assert len(named) > 15
    assert named <= set(Config.model_fields)


@pytest.mark.parametrize("page", [PAGE, CONTRIBUTING], ids=["deploy", "contributing"])
def test_every_file_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`\.?((?:app|config|deploy|docs|examples|scripts|tests|tools)/[\w./]*)", page))
    assert len(named) > 5
    assert not [name for name in named if not (CHECKOUT / name).exists()]


def test_every_command_and_tool_that_is_named_exists() -> None:
    for name in re.findall(r"sanic app exec ([\w-]+)", PAGE):
        assert hasattr(Commands, name.replace("-", "_"))
    for name in re.findall(r"-m (tools[\w.]+)", PAGE):
        assert (CHECKOUT / f"{name.replace('.', '/')}.py").exists()


def test_production_needs_what_is_to_be_set_first_and_nothing_else() -> None:
    first = {name for row in rows("What to set first", 2) for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert {name for name, field in ProductionConfig.model_fields.items() if field.is_required()} <= first


# The proxy

CLIENT, INVENTED, PROXY = "203.0.113.7", "198.51.100.1", "192.0.2.9"
SECRET = "a-secret-that-the-proxy-shares"
KNOWN = f"for={CLIENT};secret={SECRET}"


@pytest.fixture
def configured(config: Config) -> Iterator[Callable[..., Service]]:
    """Give a way to run the service with other settings."""
    started: list[Service] = []

    def configured(**settings: Any) -> Service:
        started.append(Service(config.model_copy(update=settings)).__enter__())
        return started[-1]

    yield configured
    for service in reversed(started):
        service.__exit__()


def shown(service: Service, alice: Actor, headers: dict[str, str]) -> str:
    """Return the address that a login with these headers comes from, as its owner sees it."""
    body = {"username": alice.username, "password": PASSWORD}
    tokens = service("POST", "/auth", json=body, headers=headers).json()
    found = service("GET", "/auth/sessions", token=tokens["access_token"]).json()["sessions"]
    return next(str(one["address"]) for one in found if one["current"])


@pytest.mark.parametrize(
    ("settings", "headers", "address"),
    [
        ({}, {"X-Forwarded-For": CLIENT, "X-Real-IP": CLIENT, "Forwarded": KNOWN}, "127.0.0.1"),
        ({"FORWARDED_SECRET": SECRET}, {"Forwarded": f"for={INVENTED}, {KNOWN}"}, CLIENT),
        ({"FORWARDED_SECRET": SECRET}, {"Forwarded": f'for="{CLIENT}:4711";secret={SECRET}'}, CLIENT),
        ({"FORWARDED_SECRET": SECRET}, {"Forwarded": KNOWN.replace(SECRET, "a-guess")}, "127.0.0.1"),
        ({"FORWARDED_SECRET": SECRET}, {"X-Forwarded-For": INVENTED, "X-Real-IP": INVENTED}, "127.0.0.1"),
        ({"PROXIES_COUNT": 1}, {"X-Forwarded-For": f"{INVENTED}, {CLIENT}"}, CLIENT),
        ({"PROXIES_COUNT": 1}, {"X-Forwarded-For": f"{CLIENT}:4711"}, CLIENT),
        ({"PROXIES_COUNT": 2}, {"X-Forwarded-For": f"{INVENTED}, {CLIENT}"}, INVENTED),
        ({"PROXIES_COUNT": 1}, {"X-Forwarded-For": f"{CLIENT}, {PROXY}"}, PROXY),
        ({"REAL_IP_HEADER": "X-Real-IP"}, {"X-Real-IP": INVENTED}, INVENTED),
        ({"REAL_IP_HEADER": "X-Real-IP", "PROXIES_COUNT": 1}, {"X-Real-IP": CLIENT, "X-Forwarded-For": PROXY}, CLIENT),
        (
            {"REAL_IP_HEADER": "X-Real-IP", "FORWARDED_SECRET": SECRET},
            {"X-Real-IP": INVENTED, "Forwarded": KNOWN},
            CLIENT,
        ),
    ],
    ids=[
        "none",
        "secret",
        "secret and port",
        "another secret",
        "secret and other headers",
        "count",
        "count and port",
        "count too high",
        "count too low",
        "header passed on",
        "header before count",
        "secret before header",
    ],
)
def test_whose_word_is_believed(
    configured: Callable[..., Service], alice: Actor, settings: Document, headers: dict[str, str], address: str
) -> None:
    assert shown(configured(**settings), alice, headers) == address


@pytest.mark.parametrize(("settings", "locked"), [({}, True), ({"PROXIES_COUNT": 1}, False)], ids=["none", "right"])
def test_behind_a_proxy_that_it_does_not_know_anybody_locks_out_everybody(
    configured: Callable[..., Service], alice: Actor, settings: Document, locked: bool
) -> None:
    service = configured(**settings)

    def log_in(address: str, password: str) -> int:
        body = {"username": alice.username, "password": password}
        return service("POST", "/auth", json=body, headers={"X-Forwarded-For": address}).status_code

    assert [log_in(INVENTED, "a wrong password") for _ in range(10)] == [401] * 10
    assert log_in(CLIENT, PASSWORD) == (429 if locked else 200)


# MongoDB


def test_no_uri_weakens_what_is_promised() -> None:
    database = Database("mongodb://127.0.0.1:9/x?w=1&readPreference=secondary&timeoutMS=99000", timeout_seconds=3)
    assert database._database.write_concern.document == {"w": "majority"}
    assert database._database.read_preference.name == "Primary"
    assert database._client.delegate.options.timeout == 3


def test_every_collection_is_told_with_when_its_documents_leave(
    database: Collections[Document], service: Service
) -> None:
    """And the service keeps nothing anywhere else."""
    kept = set(service.app.ctx.database.collections)
    assert set(database.list_collection_names()) <= kept
    told = {row[0].strip("`"): row[2] for row in rows("MongoDB", 3)}
    assert set(told) == kept
    minutes = {
        key: index.document["expireAfterSeconds"] / 60
        for index in (*sessions.INDEXES, *attempts.INDEXES, *users.INDEXES)
        for key in index.document["key"]
        if "expireAfterSeconds" in index.document
    }
    assert minutes == {"expires_at": 10, "ended_at": 70, "ends": 0}
    assert told["sessions"] == "10 minutes after it has expired, 70 minutes after it was ended"


# Scaling and stopping


def test_the_numbers_are_those_of_the_code() -> None:
    production = {name: field.default for name, field in ProductionConfig.model_fields.items()}
    stop = production["DRAIN_SECONDS"] + production["GRACEFUL_SHUTDOWN_TIMEOUT"] + CLOSING_SECONDS
    assert f"that is {stop} seconds in all" in PAGE
    assert f"{TOKENS_REMEMBERED:,} remembered tokens" in PAGE
    assert f"more than {CLOCK_SKEW_SECONDS} seconds ahead" in PAGE
    assert f"`REFRESH_TOKEN_SECONDS`, {production['REFRESH_TOKEN_SECONDS'] // 86400} days" in PAGE
    assert production["REGISTRATIONS_PER_ADDRESS"] == "20/minute", "twenty registrations a minute"
    assert production["LOGIN_FAILURES_PER_PAIR"].startswith("10/"), "ten wrong passwords"


# The key

KEYS = {"old": secrets.token_urlsafe(48), "new": secrets.token_urlsafe(48), "none": None}


class Machine:
    """What a machine makes of tokens with the keys of one step."""

    def __init__(self, signs: str, verifies: str) -> None:
        keys = [key.encode() for key in (KEYS[signs], KEYS[verifies]) if key]
        self._access_tokens = AccessTokens(keys, issuers=["sanic-api-demo"], lifetime_seconds=900)
        self._refresh_tokens = RefreshTokens(keys)

    def issue(self) -> tuple[str, str]:
        """Return an access token and a refresh token."""
        later = time.time() + 1000
        access, _ = self._access_tokens.encode(user_id="u", session_id="s", scopes=[], session_expires=later)
        return access, self._refresh_tokens.encode("s" * 22, 0)

    def takes(self, tokens: tuple[str, str]) -> tuple[bool, bool]:
        """Tell which of the two it takes."""
        answers = []
        for verify, token in zip((self._access_tokens.decode, self._refresh_tokens.decode), tokens, strict=True):
            try:
                verify(token)
                answers.append(True)
            except (InvalidAccessToken, InvalidRefreshToken):
                answers.append(False)
        return answers[0], answers[1]


@pytest.fixture
def steps() -> list[Machine]:
    """Give a machine for each step of the page."""
    table = rows("Changing the key", 4)
    assert [row[0] for row in table] == ["0", "1", "2", "3"]
    return [Machine(signs, verifies) for _, signs, verifies, _ in table]


def test_while_machines_are_one_step_apart_each_takes_what_the_other_issues(steps: list[Machine]) -> None:
    for before, after in pairwise(steps):
        assert before.takes(after.issue()) == (True, True)
        assert after.takes(before.issue()) == (True, True)


def test_what_was_issued_before_holds_until_the_last_step_and_not_after_it(steps: list[Machine]) -> None:
    tokens = steps[0].issue()
    assert [machine.takes(tokens) for machine in steps] == [(True, True)] * 3 + [(False, False)]
    assert steps[3].takes(steps[2].issue()) == (True, True)


def test_without_the_first_step_machines_would_refuse_each_other(steps: list[Machine]) -> None:
    assert steps[0].takes(steps[2].issue()) == (False, False)


def needing_the_old_key(database: Collections[Document], alice: Actor, step_2: Any) -> int:
    """Count as the page does, among alice's sessions."""
    now = database.client.admin.command("hello")["localTime"]
    query = {"ended": None, "expires_at": {"$gt": now}, "refreshed_at": {"$lt": step_2}}
    return database.sessions.count_documents({"user_id": alice.claims["sub"], **query})


def test_who_still_needs_the_old_key_can_be_counted(
    configured: Callable[..., Service], config: Config, alice: Actor, database: Collections[Document]
) -> None:
    """Until they have refreshed, logged out or expired; then it is dropped and nobody notices."""
    counted = PAGE.split("countDocuments(")[1].split("\n")[0]
    assert re.findall(r"([\w$]+): ", counted) == ["ended", "expires_at", "$gt", "refreshed_at", "$lt"]
    idle, leaving = alice.log_in(), alice.log_in()
    step_2 = database.client.admin.command("hello")["localTime"] + timedelta(milliseconds=1)
    assert needing_the_old_key(database, alice, step_2) == 3
    rotated = {"JWT_SECRET_KEY": KEYS["new"], "JWT_PREVIOUS_SECRET_KEYS": [config.JWT_SECRET_KEY]}
    service = configured(**rotated)
    active = Actor(service, alice.username, alice.tokens)
    assert active.refresh().status_code == 200
    assert Actor(service, alice.username, leaving.tokens).post("/auth/logout").status_code == 204
    assert needing_the_old_key(database, alice, step_2) == 1
    dropped = configured(JWT_SECRET_KEY=KEYS["new"])
    assert Actor(dropped, alice.username, active.tokens).refresh().status_code == 200
    refused = Actor(dropped, alice.username, idle.tokens).refresh()
    assert (refused.status_code, refused.json()["code"]) == (401, "refresh_token_invalid")


# Backup and restore


def test_a_restored_database_believes_what_it_believed_then_unless_the_key_is_changed(
    configured: Callable[..., Service], alice: Actor, database: Collections[Document]
) -> None:
    stolen, left = alice, alice.log_in()
    spent = stolen.tokens["refresh_token"]
    backup = list(database.sessions.find({"user_id": alice.claims["sub"]}))
    assert stolen.refresh().status_code == 200
    assert left.post("/auth/logout").status_code == 204
    for document in backup:
        database.sessions.replace_one({"_id": document["_id"]}, document)

    changed = configured(JWT_SECRET_KEY=secrets.token_urlsafe(48))
    for actor in (stolen, left):
        again = Actor(changed, alice.username, dict(actor.tokens))
        assert (again.secret_status, again.refresh().status_code) == (401, 401)

    unchanged = configured()
    owner = Actor(unchanged, alice.username, dict(stolen.tokens))
    assert owner.refresh().json()["code"] == "session_ended", "ahead of what the database knows"
    assert owner.refresh(spent).status_code == 200, "and the thief's is good again"
    assert Actor(unchanged, alice.username, left.tokens).secret_status == 200, "as if nobody had logged out"


# Watching


def test_metrics_and_alerts_are_those_that_there_are() -> None:
    ours = [metric for metric in REGISTRY.collect() if not metric.name.startswith(("python_", "process_"))]
    names = {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in ours}
    assert {row[0].strip("`") for row in rows("What to watch", 2)} == names
    alerts = re.findall(r"- alert: (\w+)", (CHECKOUT / "deploy" / "monitoring" / "alerts.yml").read_text())
    assert sorted(row[0].strip("`") for row in rows("What to watch", 3)) == sorted(alerts)
