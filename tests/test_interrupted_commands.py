"""Commands that the server interrupts: 503 with a reason in the log, on every route and in transactions."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from app.models.users import Access
from config import Config
from config.product import NAME
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.processes import until
from tests.serving import new_name
from tools.local_mongo import LocalMongo

# Interruptions and invalidated cursors; conflicts, locks and transactions that were given up; no disk, no writes.
CODES = [43, 50, 175, 237, 262, 11601, 24, 112, 251, 256, 263, 371, 14031]

Failing = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMongo]:
    """Run a MongoDB that can return errors on demand."""
    folder: Path = tmp_path_factory.mktemp("interrupted")
    mongo = LocalMongo(folder, options=["--setParameter", "enableTestCommands=1"])
    try:
        mongo.start()
        yield mongo
    finally:
        mongo.stop()


@pytest.fixture(scope="module")
def service(config: Config, mongo: LocalMongo) -> Iterator[Service]:
    """Run the service on it."""
    settings = {"MONGO_URI": mongo.uri, "MONGO_TIMEOUT_SECONDS": 1, "REVOCATION_STALE_SECONDS": 120}
    with Service(config.model_copy(update=settings)) as service:
        yield service


@pytest.fixture(scope="module")
def admin(service: Service, mongo: LocalMongo) -> Actor:
    """Return an administrator."""
    body = {"username": "admin", "password": PASSWORD}
    service("POST", "/users/registration", json=body)
    with MongoClient[Document](mongo.uri) as client:
        client.get_default_database().users.update_one({}, {"$set": {"access": Access.ADMIN}})
    return Actor(service, "admin", service("POST", "/auth", json=body).json())


@pytest.fixture
def failing(mongo: LocalMongo) -> Failing:
    """Return a function that lets commands fail for the context."""

    @contextmanager
    def failing(code: int, *commands: str) -> Iterator[None]:
        with MongoClient[Document](mongo.uri) as client:
            # The connection of the test itself has another name.
            data: dict[str, Any] = {"failCommands": list(commands), "errorCode": code, "appName": NAME}
            client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
            try:
                yield
            finally:
                client.admin.command("configureFailPoint", "failCommand", mode="off")

    return failing


@pytest.mark.parametrize("code", CODES)
def test_an_interrupted_command_is_503(service: Service, admin: Actor, failing: Failing, code: int) -> None:
    token = admin.tokens["access_token"]
    user = f"/users/{admin.claims['sub']}"
    body = {"username": "alice", "password": PASSWORD}
    with failing(code, "find", "insert", "update", "findAndModify", "delete"):
        responses = [
            service("POST", "/users/registration", json=body),
            service("POST", "/auth", json=body),
            service("POST", "/auth/refresh", json={"refresh_token": admin.tokens["refresh_token"]}),
            service("GET", "/auth/me", token=token),
            service("GET", "/users", token=token),
            service("PATCH", user, token=token, json={"access": "user"}),
            service("POST", "/auth/logout", token=token),
        ]
    assert [(one.status_code, one.json()["code"]) for one in responses] == [(503, "store_unavailable")] * 7
    assert admin.get("/auth/me").status_code == 200


@pytest.mark.parametrize("command", ["findAndModify", "update", "find", "commitTransaction"])
@pytest.mark.parametrize("code", [24, 112, 251, 256, 263])
def test_a_transaction_that_the_server_gives_up_is_503_when_the_time_budget_ends(
    service: Service, failing: Failing, code: int, command: str
) -> None:
    """What was not acknowledged may still be done: each case has a user of its own."""
    body = {"username": new_name(), "password": PASSWORD}
    tokens = service("POST", "/users/registration", json=body).json()
    with failing(code, command):
        response = service("POST", "/auth/logout-all", token=tokens["access_token"])
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("command", ["findAndModify", "update", "connectionStatus", "hello"])
def test_readiness_tries_what_requests_need(
    service: Service,
    admin: Actor,
    failing: Failing,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    command: str,
) -> None:
    """A database that accepts no writes, for example on a full disk, or while an operator blocks them, cannot serve."""
    del admin
    monkeypatch.setattr("app.database.client.CHECK_SECONDS", 0)
    service.app.ctx.reports.recovered()
    assert service("GET", "/health/ready").status_code == 200
    with failing(14031, command):
        response = service("GET", "/health/ready")
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert "OutOfDiskSpace 14031" in caplog.text
    assert service("GET", "/health/ready").status_code == 200


def test_a_database_whose_writes_wait_for_a_lock_is_not_ready(
    service: Service, mongo: LocalMongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still answers reads, for example while an operator makes a backup of its files."""
    monkeypatch.setattr("app.database.client.CHECK_SECONDS", 0)
    with MongoClient[Document](mongo.uri) as client:
        client.admin.command("fsync", lock=True)
        try:
            assert service("GET", "/health/ready").status_code == 503
        finally:
            client.admin.command("fsyncUnlock")
    until(lambda: service("GET", "/health/ready").status_code == 200, "ready after the lock")
