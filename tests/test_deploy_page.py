"""docs/deploy.md: its procedures work, and the settings, files and commands that it names exist."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymongo.database import Database as Collections

from app import metrics
from app.commands import Commands
from app.database.client import Database
from app.models import attempts, sessions, users
from app.security.authentication import TOKENS_REMEMBERED
from app.server.supervisor import CLOSING_SECONDS
from app.tokens.access import CLOCK_SKEW_SECONDS, AccessTokens, InvalidAccessToken
from app.tokens.refresh import InvalidRefreshToken, RefreshTokens
from config import Config
from config.environments import ProductionConfig
from config.product import SLUG
from tests.conftest import PASSWORD, SESSION_ID, USER_ID, Actor, Document, Service
from tests.serving import CHECKOUT

PAGE = (CHECKOUT / "docs" / "deploy.md").read_text()
CONTRIBUTING = (CHECKOUT / "CONTRIBUTING.md").read_text()
NOT_SETTINGS = {"APP_ENV", "APP_SMTP_URL_FILE", "GET", "POST", "SIGTERM", "SSL_CERT_FILE"}
HAPROXY = (CHECKOUT / "deploy" / "haproxy.cfg").read_text()
BALANCER = dict(re.findall(r"\$\{(\w+)-(\w+)\}", HAPROXY))  # optional environment variables of the load balancer


def rows(heading: str, columns: int) -> list[list[str]]:
    """Return the rows of the tables under a heading that have this number of columns, without the header rows."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    bodies = [[cell.strip() for cell in line] for line in lines if len(line) == columns]
    start = next(number for number, row in enumerate(bodies) if set("".join(row)) == {"-"})
    return bodies[start + 1 :]


def test_every_setting_on_the_page_exists() -> None:
    named = set(re.findall(r"`(?:APP_)?([A-Z][A-Z_]{2,})`", PAGE)) - {
        name.removeprefix("APP_") for name in NOT_SETTINGS
    }
    assert len(named) > 15
    assert named <= set(Config.model_fields) | set(BALANCER)


def test_the_limits_of_clients_are_those_of_the_load_balancer() -> None:
    """With their defaults, here and in the comment of the configuration."""
    documented = {row[0].strip("`"): row[1].split()[0] for row in rows("Reverse proxy", 3) if "CLIENT_" in row[0]}
    limits = {name: value for name, value in BALANCER.items() if name.startswith("CLIENT_")}
    assert documented == limits
    for name, value in limits.items():
        assert re.search(rf"^#   {name} .*\({value}\)", HAPROXY, re.MULTILINE)
    assert f"`HIDDEN_PATHS` of HAProxy hides further paths besides\n`/{BALANCER['HIDDEN_PATHS']}`" in PAGE
    kept = [int(found) for found in re.findall(r"(?:maxconn|fe_conn gt) (\d+)", HAPROXY.split("frontend clients")[1])]
    assert f"more than {kept[1]} of {kept[0]} are in use" in PAGE


@pytest.mark.parametrize("page", [PAGE, CONTRIBUTING], ids=["deploy", "contributing"])
def test_every_file_on_the_page_exists(page: str) -> None:
    named = set(re.findall(r"`\.?((?:app|config|deploy|docs|examples|scripts|tests|tools)/[\w./]*)", page))
    assert len(named) > 5
    assert not [name for name in named if not (CHECKOUT / name).exists()]


def test_every_command_and_tool_on_the_page_exists() -> None:
    for name in re.findall(r"sanic app exec ([\w-]+)", PAGE):
        assert hasattr(Commands, name.replace("-", "_"))
    for name in re.findall(r"-m (tools[\w.]+)", PAGE):
        assert (CHECKOUT / f"{name.replace('.', '/')}.py").exists()


def test_what_to_set_first_contains_all_required_settings_of_production() -> None:
    first = {name for row in rows("What to set first", 2) for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert {name for name, field in ProductionConfig.model_fields.items() if field.is_required()} <= first


# Reverse proxy

CLIENT, SPOOFED, PROXY = "203.0.113.7", "198.51.100.1", "192.0.2.9"
SECRET = "a-secret-that-the-proxy-shares"
FORWARDED = f"for={CLIENT};secret={SECRET}"


@pytest.fixture
def configured(config: Config) -> Iterator[Callable[..., Service]]:
    """Give a function that runs the service with other settings."""
    started: list[Service] = []

    def configured(**settings: Any) -> Service:
        started.append(Service(config.model_copy(update=settings)).__enter__())
        return started[-1]

    yield configured
    for service in reversed(started):
        service.__exit__()


def address_of_login(service: Service, alice: Actor, headers: dict[str, str]) -> str:
    """Return the address of a login with these headers, as the list of sessions shows it."""
    body = {"username": alice.username, "password": PASSWORD}
    tokens = service("POST", "/auth", json=body, headers=headers).json()
    found = service("GET", "/auth/sessions", token=tokens["access_token"]).json()["sessions"]
    return next(str(one["address"]) for one in found if one["current"])


@pytest.mark.parametrize(
    ("settings", "headers", "address"),
    [
        ({}, {"X-Forwarded-For": CLIENT, "X-Real-IP": CLIENT, "Forwarded": FORWARDED}, "127.0.0.1"),
        ({"FORWARDED_SECRET": SECRET}, {"Forwarded": f"for={SPOOFED}, {FORWARDED}"}, CLIENT),
        ({"FORWARDED_SECRET": SECRET}, {"Forwarded": f'for="{CLIENT}:4711";secret={SECRET}'}, CLIENT),
        ({"FORWARDED_SECRET": SECRET}, {"Forwarded": FORWARDED.replace(SECRET, "a-guess")}, "127.0.0.1"),
        ({"FORWARDED_SECRET": SECRET}, {"X-Forwarded-For": SPOOFED, "X-Real-IP": SPOOFED}, "127.0.0.1"),
        ({"PROXIES_COUNT": 1}, {"X-Forwarded-For": f"{SPOOFED}, {CLIENT}"}, CLIENT),
        ({"PROXIES_COUNT": 1}, {"X-Forwarded-For": f"{CLIENT}:4711"}, CLIENT),
        ({"PROXIES_COUNT": 2}, {"X-Forwarded-For": f"{SPOOFED}, {CLIENT}"}, SPOOFED),
        ({"PROXIES_COUNT": 1}, {"X-Forwarded-For": f"{CLIENT}, {PROXY}"}, PROXY),
        ({"REAL_IP_HEADER": "X-Real-IP"}, {"X-Real-IP": SPOOFED}, SPOOFED),
        ({"REAL_IP_HEADER": "X-Real-IP", "PROXIES_COUNT": 1}, {"X-Real-IP": CLIENT, "X-Forwarded-For": PROXY}, CLIENT),
        (
            {"REAL_IP_HEADER": "X-Real-IP", "FORWARDED_SECRET": SECRET},
            {"X-Real-IP": SPOOFED, "Forwarded": FORWARDED},
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
        "forwarded header",
        "header before count",
        "secret before header",
    ],
)
def test_the_proxy_settings_determine_the_client_address(
    configured: Callable[..., Service], alice: Actor, settings: Document, headers: dict[str, str], address: str
) -> None:
    assert address_of_login(configured(**settings), alice, headers) == address


@pytest.mark.parametrize(("settings", "locked"), [({}, True), ({"PROXIES_COUNT": 1}, False)], ids=["none", "right"])
def test_behind_an_unconfigured_proxy_one_client_locks_out_the_others(
    configured: Callable[..., Service], alice: Actor, settings: Document, locked: bool
) -> None:
    service = configured(**settings)

    def log_in(address: str, password: str) -> int:
        body = {"username": alice.username, "password": password}
        return service("POST", "/auth", json=body, headers={"X-Forwarded-For": address}).status_code

    assert [log_in(SPOOFED, "a wrong password") for _ in range(10)] == [401] * 10
    assert log_in(CLIENT, PASSWORD) == (429 if locked else 200)


# MongoDB


def test_uri_options_do_not_override_write_concern_read_preference_and_timeout() -> None:
    database = Database(
        "mongodb://127.0.0.1:9/x?w=1&journal=false&readConcernLevel=local&readPreference=secondary&timeoutMS=99000",
        default_name="x",
        timeout_seconds=3,
    )
    assert database._database.write_concern.document == {"w": "majority", "j": True}
    assert database._database.read_concern.level == "majority"
    assert database._database.read_preference.name == "Primary"
    assert database._client.delegate.options.timeout == 3


def test_every_collection_is_documented_with_its_retention(database: Collections[Document], service: Service) -> None:
    """The service uses no other collections."""
    collections = set(service.app.ctx.database.collections)
    collections |= {"outbox", "keys"}  # of a service with mail and asymmetric keys
    assert {name for name in database.list_collection_names() if not name.startswith("system.")} <= collections
    documented = {row[0].strip("`"): row[2] for row in rows("MongoDB", 3)}
    assert set(documented) == collections
    minutes = {
        key: index.document["expireAfterSeconds"] / 60
        for index in (*sessions.INDEXES, *attempts.INDEXES, *users.INDEXES)
        for key in index.document["key"]
        if "expireAfterSeconds" in index.document
    }
    assert minutes == {"expires_at": 10, "ended_at": 70, "ends": 0}
    assert documented["sessions"] == "10 minutes after it has expired, 70 minutes after it was ended"


# Scaling and stopping


def test_the_numbers_on_the_page_match_the_code() -> None:
    production = {name: field.default for name, field in ProductionConfig.model_fields.items()}
    stop = production["DRAIN_SECONDS"] + production["GRACEFUL_SHUTDOWN_TIMEOUT"] + CLOSING_SECONDS
    assert f"that is {stop} seconds in all" in PAGE
    assert f"{TOKENS_REMEMBERED:,} remembered tokens" in PAGE
    assert f"more than {CLOCK_SKEW_SECONDS} seconds ahead" in PAGE
    assert f"`REFRESH_TOKEN_SECONDS`, {production['REFRESH_TOKEN_SECONDS'] // 86400} days" in PAGE
    assert production["REGISTRATIONS_PER_ADDRESS"] == "20/minute", "twenty registrations a minute"
    assert production["LOGIN_FAILURES_PER_PAIR"].startswith("10/"), "ten wrong passwords"


# Key rotation

KEYS = {"old": secrets.token_urlsafe(48), "new": secrets.token_urlsafe(48), "none": None}


class Machine:
    """A machine with the keys of one step of the rotation."""

    def __init__(self, signs: str, verifies: str) -> None:
        keys = [key.encode() for key in (KEYS[signs], KEYS[verifies]) if key]
        self._access_tokens = AccessTokens(keys, issuers=[SLUG], audience=SLUG, lifetime_seconds=900)
        self._refresh_tokens = RefreshTokens(keys, product=SLUG)

    def issue(self) -> tuple[str, str]:
        """Return an access token and a refresh token."""
        later = time.time() + 1000
        access, _ = self._access_tokens.encode(user_id=USER_ID, session_id=SESSION_ID, scopes=[], session_expires=later)
        return access, self._refresh_tokens.encode(SESSION_ID, 0)

    def accepts(self, tokens: tuple[str, str]) -> tuple[bool, bool]:
        """Return for each of the two whether the machine accepts it."""
        results = []
        for verify, token in zip((self._access_tokens.decode, self._refresh_tokens.decode), tokens, strict=True):
            try:
                verify(token)
                results.append(True)
            except (InvalidAccessToken, InvalidRefreshToken):
                results.append(False)
        return results[0], results[1]


@pytest.fixture
def steps() -> list[Machine]:
    """Give a machine for each step on the page."""
    table = rows("Changing the key", 4)
    assert [row[0] for row in table] == ["0", "1", "2", "3"]
    return [Machine(signs, verifies) for _, signs, verifies, _ in table]


def test_machines_one_rotation_step_apart_accept_each_others_tokens(steps: list[Machine]) -> None:
    for before, after in pairwise(steps):
        assert before.accepts(after.issue()) == (True, True)
        assert after.accepts(before.issue()) == (True, True)


def test_tokens_of_the_old_key_are_valid_until_the_last_rotation_step(steps: list[Machine]) -> None:
    tokens = steps[0].issue()
    assert [machine.accepts(tokens) for machine in steps] == [(True, True)] * 3 + [(False, False)]
    assert steps[3].accepts(steps[2].issue()) == (True, True)


def test_without_the_first_rotation_step_machines_reject_each_others_tokens(steps: list[Machine]) -> None:
    assert steps[0].accepts(steps[2].issue()) == (False, False)


def needing_the_old_key(database: Collections[Document], alice: Actor, step_2: Any) -> int:
    """Run the page's count for the sessions of alice."""
    now = database.client.admin.command("hello")["localTime"]
    query = {"ended": None, "expires_at": {"$gt": now}, "refreshed_at": {"$lt": step_2}}
    return database.sessions.count_documents({"user_id": alice.claims["sub"], **query})


def test_sessions_that_need_the_old_key_can_be_counted(
    configured: Callable[..., Service], config: Config, alice: Actor, database: Collections[Document]
) -> None:
    """When all have refreshed, logged out or expired, removing the old key ends no session."""
    counted = PAGE.split("countDocuments(")[1].split("\n")[0]
    assert re.findall(r"([\w$]+): ", counted) == ["ended", "expires_at", "$gt", "refreshed_at", "$lt"]
    idle, logged_out = alice.log_in(), alice.log_in()
    step_2 = database.client.admin.command("hello")["localTime"] + timedelta(milliseconds=1)
    assert needing_the_old_key(database, alice, step_2) == 3
    rotated = {"JWT_SECRET_KEY": KEYS["new"], "JWT_PREVIOUS_SECRET_KEYS": [config.JWT_SECRET_KEY]}
    service = configured(**rotated)
    active = Actor(service, alice.username, alice.tokens)
    assert active.refresh().status_code == 200
    assert Actor(service, alice.username, logged_out.tokens).post("/auth/logout").status_code == 204
    assert needing_the_old_key(database, alice, step_2) == 1
    without_old_key = configured(JWT_SECRET_KEY=KEYS["new"])
    assert Actor(without_old_key, alice.username, active.tokens).refresh().status_code == 200
    response = Actor(without_old_key, alice.username, idle.tokens).refresh()
    assert (response.status_code, response.json()["code"]) == (401, "refresh_token_invalid")


# Backup and restore


def test_a_restored_backup_makes_ended_sessions_active_unless_the_key_is_changed(
    configured: Callable[..., Service], alice: Actor, database: Collections[Document]
) -> None:
    stolen, logged_out = alice, alice.log_in()
    used = stolen.tokens["refresh_token"]
    backup = list(database.sessions.find({"user_id": alice.claims["sub"]}))
    assert stolen.refresh().status_code == 200
    assert logged_out.post("/auth/logout").status_code == 204
    for document in backup:
        database.sessions.replace_one({"_id": document["_id"]}, document)

    changed = configured(JWT_SECRET_KEY=secrets.token_urlsafe(48))
    for actor in (stolen, logged_out):
        again = Actor(changed, alice.username, dict(actor.tokens))
        assert (again.secret_status, again.refresh().status_code) == (401, 401)

    unchanged = configured()
    owner = Actor(unchanged, alice.username, dict(stolen.tokens))
    assert owner.refresh().json()["code"] == "session_ended", "its counter is ahead of the restored one"
    assert owner.refresh(used).status_code == 200, "a token that was already used, and may be stolen, is valid again"
    assert Actor(unchanged, alice.username, logged_out.tokens).secret_status == 200, "the logout is undone"


# Monitoring


def test_the_page_lists_exactly_the_existing_metrics_and_alerts() -> None:
    shown = text_string_to_metric_families(metrics.text().decode())
    ours = [metric for metric in shown if not re.match("(python|process)_.*|.*_created$", metric.name)]
    names = {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in ours}
    assert {row[0].strip("`") for row in rows("What to watch", 2)} == names
    alerts = re.findall(r"- alert: (\w+)", (CHECKOUT / "deploy" / "monitoring" / "alerts.yml").read_text())
    assert sorted(row[0].strip("`") for row in rows("What to watch", 3)) == sorted(alerts)
