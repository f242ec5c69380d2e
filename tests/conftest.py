"""A service on a real MongoDB, and users with accounts."""

import asyncio
import json
import logging
import os
import re
import secrets
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
from pymongo import MongoClient
from pymongo.database import Database
from sanic import Sanic
from sanic.exceptions import SanicException
from sanic_testing.reusable import ReusableClient

from app import create_app
from app.context import App
from app.database.collection import DECODING
from app.http.problems import CONTENT_TYPE
from app.models.users import Access
from app.openapi.operations import operation_of
from app.openapi.responses import SHARED
from app.security import turns
from app.tokens.access import key_id
from config import Config
from config.environments import TestingConfig
from config.product import NAME
from tests.mailbox import Mailbox, with_mail
from tools.local_mongo import free_port

PASSWORD = "correct horse battery staple"
USER_ID, SESSION_ID = 24 * "0", 22 * "0"  # in the form of ids, but unknown
Document = dict[str, Any]


SECRET = re.compile("password|token|secret|challenge|code|uri")  # in the name of a field
WORD = re.compile(r"[\w-]+(?:\.[\w-]+)*")


class Leaks(logging.Handler):
    """A log handler that finds the secrets of the tests in log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.secrets: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Record a line with everything that a formatter may write: message, traceback, extra fields."""
        extra = {name: value for name, value in record.__dict__.items() if name not in ("msg", "args", "exc_info")}
        self.lines.append(f"{logging.Formatter().format(record)} {extra!r}")

    def remember(self, sent: Any) -> None:
        """Record the passwords, tokens and codes of a body; short ones would match unrelated lines."""
        if isinstance(sent, dict):
            values = (value for name, value in sent.items() if SECRET.search(name))
            texts = (text for value in values for text in (value if isinstance(value, list) else [value]))
            self.secrets |= {text for text in texts if isinstance(text, str) and len(text) >= 16}

    def found(self) -> list[str]:
        """Return the lines that contain a secret."""
        phrases = {secret for secret in self.secrets if not WORD.fullmatch(secret)}
        words = self.secrets - phrases
        return [
            line
            for line in self.lines
            if not words.isdisjoint(WORD.findall(line)) or any(phrase in line for phrase in phrases)
        ]


leaks = Leaks()
turns.REFUSAL_SECONDS = 0.1  # of this process, so that its tests do not wait


def assert_declared(app: App, response: httpx.Response) -> None:
    """Fail if a route answers with a code that its description does not declare."""
    if response.headers.get("content-type") != CONTENT_TYPE:
        return
    try:
        route, _, _ = app.router.get(response.request.url.path, response.request.method, None)
    except SanicException:
        return  # there is no route with this path and method
    handler = getattr(getattr(route.handler, "view_class", None), response.request.method.lower(), None)
    operation = operation_of(handler)
    if operation and response.content:  # a response to HEAD has none
        code = response.json()["code"]
        assert code in {*operation.codes, *SHARED}, f"/{route.path} does not declare {code}"


class Service:
    """The running app and a client with persistent connections, on one event loop."""

    def __init__(self, config: Config, app: App | None = None) -> None:
        self.config = config
        self.app = app or create_app(config=config)
        self._client = ReusableClient(self.app, host="127.0.0.1", port=free_port())
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._client.port}", timeout=120)

    def __enter__(self) -> "Service":
        self._client.run()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._http.aclose())
        self._client.stop()

    @property
    def address(self) -> tuple[str, int]:
        """The address that it listens at."""
        return "127.0.0.1", self._client.port

    def run(self, what: Awaitable[Any]) -> Any:
        """Wait for something on the event loop of the service."""
        return self._client._run(what)

    def __call__(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """Send a request, with `token` in the Authorization header."""
        response: httpx.Response = self.run(self.send(method, path, token=token, **options))
        return response

    def together(self, *requests: Awaitable[httpx.Response]) -> list[httpx.Response]:
        """Send several requests, made with `send`, concurrently."""

        async def gather() -> list[httpx.Response]:
            return list(await asyncio.gather(*requests))

        responses: list[httpx.Response] = self.run(gather())
        return responses

    async def send(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """Send a request from a coroutine."""
        if token is not None:
            options["headers"] = {**options.get("headers", {}), "Authorization": f"Bearer {token}"}
        response = await self._http.request(method, path, **options)
        assert_declared(self.app, response)
        leaks.remember(options.get("json"))
        if response.status_code in (200, 201) and response.content.startswith(b"{"):
            leaks.remember(response.json())
        return response


class Actor:
    """A user with an account and the tokens of one session."""

    def __init__(self, service: Service, username: str, tokens: Document) -> None:
        self.service = service
        self.username = username
        self.password = PASSWORD
        self.tokens = tokens

    def get(self, path: str) -> httpx.Response:
        """Send a GET request with the access token."""
        return self.service("GET", path, token=self.tokens["access_token"])

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """Send a POST request with the access token."""
        return self.service("POST", path, token=self.tokens["access_token"], json=body)

    def log_in(self) -> "Actor":
        """Open another session, as another device does."""
        response = self.service("POST", "/auth", json={"username": self.username, "password": self.password})
        assert response.status_code == 200, response.text
        return Actor(self.service, self.username, response.json())

    def refresh(self, refresh_token: str | None = None) -> httpx.Response:
        """Exchange the refresh token, or an older one, and store the new tokens."""
        token = refresh_token or self.tokens["refresh_token"]
        response = self.service("POST", "/auth/refresh", json={"refresh_token": token})
        if response.status_code == 200:
            self.tokens = response.json()
        return response

    @property
    def claims(self) -> Document:
        """The claims of the access token."""
        claims: Document = jwt.decode(self.tokens["access_token"], options={"verify_signature": False})
        return claims

    @property
    def secret_status(self) -> int:
        """The status of /tests/secret with the access token."""
        return self.get("/tests/secret").status_code


def registered(service: Service, username: str | None = None) -> Actor:
    """Register a user of a service, by default under an unused name."""
    name = username or f"Alice-{secrets.token_hex(6)}"
    response = service("POST", "/users/registration", json={"username": name, "password": PASSWORD})
    assert response.status_code == 201, response.text
    return Actor(service, name, response.json())


def drop_database(uri: str) -> None:
    """Drop the database of a URI."""
    with MongoClient[Document](uri) as client:
        client.drop_database(client.get_default_database())


@contextmanager
def scans_recorded(uri: str) -> Iterator[Callable[[], set[str]]]:
    """Let MongoDB record the service's queries that read a whole collection. Yields a function that returns them."""
    with MongoClient[Document](uri) as client:
        database = client.get_default_database()
        database.command("profile", 1, filter={"planSummary": {"$regex": "COLLSCAN"}, "appName": NAME})
        yield lambda: {f"{one['ns']}: {one['command']}" for one in database["system.profile"].find()}


def pytest_configure() -> None:
    """End a terminated run as by Ctrl-C, so that fixtures stop the processes that they have started."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for _, text in report.user_properties if report.when == "call" else ():
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that adds a measurement to the summary."""
    return partial(record_property, "measured")


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """Yield the URI of a database for the whole session, dropped at the end."""
    server = os.environ.get("APP_MONGO_URI")
    assert server, "The suite needs a MongoDB of its own: run scripts/test"
    uri = f"{server.rpartition('/')[0]}/{NAME}_test_{secrets.token_hex(4)}"
    with scans_recorded(uri) as scans:
        yield uri
        found = scans()
    drop_database(uri)
    assert not found, f"these queries of the service have no index: {found}"


@pytest.fixture(scope="session")
def config(mongo_uri: str) -> Config:
    """Return the settings of the testing environment, with a random key."""
    return TestingConfig(
        JWT_SECRET_KEY=secrets.token_urlsafe(48),
        MONGO_URI=mongo_uri,
        ACCESS_TOKEN_SECONDS=3600,  # on a busy machine, the suite takes longer than the default
        # All tests use one address; the tests of the throttle have their own limits.
        LOGIN_FAILURES_PER_ADDRESS="1000000/minute",
        REGISTRATIONS_PER_ADDRESS="1000000/minute",
        RESETS_PER_ADDRESS="1000000/minute",
    )


@pytest.fixture(scope="session")
def service(config: Config) -> Iterator[Service]:
    """Run the service for the whole session."""
    Sanic.test_mode = True
    logging.getLogger().addHandler(leaks)
    with Service(config) as service:
        yield service
    logging.getLogger().removeHandler(leaks)
    assert not leaks.found(), "a log line contains a password or a token"


@pytest.fixture(autouse=True)
def _follow_revocations(request: pytest.FixtureRequest) -> None:
    """Let the service follow the revocations: its event loop stands still while tests of other services run."""
    if "service" in request.fixturenames:
        service = request.getfixturevalue("service")
        if isinstance(service, Service):  # not the one of several processes
            service.run(service.app.ctx.revocations.catch_up())


@pytest.fixture(scope="session")
def database(mongo_uri: str) -> Iterator[Database[Document]]:
    """Yield a direct connection to the database, which decodes every document that tests store."""
    with MongoClient[Document](mongo_uri) as client:
        yield client.get_default_database(codec_options=DECODING)


@pytest.fixture
def register(service: Service) -> Callable[..., Actor]:
    """Return a function that registers a user under an unused name."""
    return partial(registered, service)


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server."""
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def mailing(config: Config, mailbox: Mailbox) -> Iterator[Service]:
    """Run a service that sends mails."""
    with Service(with_mail(config, mailbox)) as service:
        yield service


@pytest.fixture
def alice(register: Callable[..., Actor]) -> Actor:
    """Register alice and log her in."""
    return register()


@pytest.fixture(scope="session")
def resident(service: Service) -> Actor:
    """Register a user for tests that only read a token; no test ends her session."""
    return registered(service, f"resident-{secrets.token_hex(6)}")


@pytest.fixture
def bob(register: Callable[..., Actor]) -> Actor:
    """Register bob, another user."""
    return register(f"bob-{secrets.token_hex(6)}")


@pytest.fixture
def appoint(register: Callable[..., Actor], database: Database[Document]) -> Iterator[Callable[[], Actor]]:
    """Yield a function that makes administrators; they lose the rank after the test."""
    database.users.update_many({"access": Access.ADMIN}, {"$set": {"access": Access.USER}})

    def appoint() -> Actor:
        actor = register(f"admin-{secrets.token_hex(4)}")
        database.users.update_one({"username": actor.username}, {"$set": {"access": Access.ADMIN}})
        return actor.log_in()

    yield appoint
    database.users.update_many({"access": Access.ADMIN}, {"$set": {"access": Access.USER}})


@pytest.fixture
def admin(appoint: Callable[[], Actor]) -> Actor:
    """Return the only administrator."""
    return appoint()


@pytest.fixture
def forge(config: Config, resident: Actor) -> Callable[..., str]:
    """Return a function that signs a changed copy of the resident's access token, by default with the right key.

    A claim or header of None is omitted.
    """

    def forge(
        claims: Document | None = None,
        headers: Document | None = None,
        *,
        key: str = config.JWT_SECRET_KEY,
        algorithm: str = "HS256",
    ) -> str:
        changed = {
            name: value
            for name, value in {**resident.claims, "jti": secrets.token_urlsafe(16), **(claims or {})}.items()
            if value is not None
        }
        header = {"typ": "at+jwt", "kid": key_id(config.JWT_SECRET_KEY.encode()), **(headers or {})}
        return jwt.PyJWS().encode(json.dumps(changed).encode(), key, algorithm, headers=header)

    return forge
