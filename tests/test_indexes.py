"""Readiness: the indexes that requests need exist, whoever has created them, or the log says what is in their way."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from app.database import indexes
from app.models import attempts, sessions, users
from config import Config
from tests.conftest import PASSWORD, Document, Service
from tests.processes import until

INDEXES = {"users": users.INDEXES, "sessions": sessions.INDEXES, "attempts": attempts.INDEXES}
EXPIRY = "expireAfterSeconds"

Start = Callable[..., Service]


@pytest.fixture
def empty(config: Config) -> Iterator[Database[Document]]:
    """Yield an empty database, and drop it afterwards."""
    with MongoClient[Document](f"{config.MONGO_URI}_indexes", tz_aware=True) as client:
        database = client.get_default_database()
        yield database
        client.drop_database(database)


@pytest.fixture
def start(config: Config, empty: Database[Document]) -> Iterator[Start]:
    """Yield a function that starts the service on that database."""
    running: list[Service] = []

    def start(**settings: Any) -> Service:
        uri = f"{config.MONGO_URI.rpartition('/')[0]}/{empty.name}"
        service = Service(config.model_copy(update={"MONGO_URI": uri, **settings}))
        running.append(service.__enter__())
        return service

    yield start
    for service in running:
        service.__exit__()


def meaning(index: Mapping[str, Any]) -> Document:
    """Return what an index means: everything but its name and version."""
    return {name: value for name, value in index.items() if name not in ("name", "v", "ns")}


def meanings(database: Database[Document], collection: str) -> list[Document]:
    """Return what the indexes of a collection mean, in the order of their names."""
    return [meaning(index) for index in database[collection].list_indexes()]


def assert_serves(service: Service) -> None:
    """Fail if the service is not ready, or if nobody can register and log in."""
    assert service("GET", "/health/ready").status_code == 200
    body = {"username": f"user-{ObjectId()}", "password": PASSWORD}
    assert service("POST", "/users/registration", json=body).status_code == 201
    assert service("POST", "/users/registration", json=body).json()["code"] == "username_taken"
    assert service("POST", "/auth", json=body).status_code == 200


ALL = [(name, model.document) for name, models in INDEXES.items() for model in models]


def named(cases: list[tuple[str, Any]]) -> list[str]:
    """Return names for test cases."""
    return [f"{collection}-{document['name']}" for collection, document in cases]


def options(document: Document, **changes: Any) -> Document:
    """Return the options of an index, changed."""
    return {**{name: value for name, value in document.items() if name not in ("key", "name")}, **changes}


def test_every_index_is_accepted_under_any_name(start: Start, empty: Database[Document]) -> None:
    """Names are no part of what an index means."""
    for collection, document in ALL:
        empty[collection].create_index(
            list(document["key"].items()), name=f"mine-{document['name']}", **options(document)
        )
    before = {collection: meanings(empty, collection) for collection in INDEXES}
    assert_serves(start())
    assert {collection: meanings(empty, collection) for collection in INDEXES} == before, "none was created twice"


TTL = [(collection, document) for collection, document in ALL if EXPIRY in document]


@pytest.mark.parametrize("name", [None, "mine"], ids=["same name", "other name"])
@pytest.mark.parametrize("lifetime", [7, None], ids=["other lifetime", "no lifetime"])
def test_another_lifetime_is_corrected_and_logged(
    start: Start, empty: Database[Document], caplog: pytest.LogCaptureFixture, lifetime: int | None, name: str | None
) -> None:
    """As after an upgrade, or if somebody created the index by hand."""
    for collection, document in TTL:
        given = options(document, name=f"{name or ''}{document['name']}") | {EXPIRY: lifetime}
        if lifetime is None:
            del given[EXPIRY]
        empty[collection].create_index(list(document["key"].items()), **given)
    assert_serves(start())
    for collection, document in TTL:
        assert meaning(document) in meanings(empty, collection)
        start_of_line = f"{collection}: the index {name or ''}{document['name']} had "
        line = next(line for line in caplog.messages if line.startswith(start_of_line))
        assert f"{EXPIRY} {document[EXPIRY]}" in line
        assert f"{EXPIRY} {lifetime or json.dumps('none')}" in line


@pytest.mark.parametrize(
    ("collection", "keys", "given"),
    [
        ("users", "username", {"name": "canonical_name_1"}),
        ("users", "canonical_name", {}),
        ("users", "canonical_name", {"unique": True, "sparse": True}),
        ("users", "canonical_name", {"unique": True, "partialFilterExpression": {"access": 2}}),
        ("users", "access", {}),
        ("users", "access", {"partialFilterExpression": {"access": 1}}),
        ("sessions", "ended", {"name": "user_id_1"}),
        ("sessions", "expires_at", {EXPIRY: 5, "partialFilterExpression": {"kind": "mine"}}),
        ("sessions", [("expires_at", -1)], {"name": "expires_at_1"}),
        ("attempts", "count", {"name": "ends_1", EXPIRY: 0}),
        ("attempts", "count", {"name": "ends_1_2"}),
    ],
    ids=str,
)
def test_an_index_of_another_meaning_stays_and_ours_is_created_beside_it(
    empty: Database[Document], collection: str, keys: Any, given: Document
) -> None:
    """Also if it has the name that ours would have."""
    empty[collection].create_index(keys, **given)
    (theirs,) = [index for index in meanings(empty, collection) if index["key"] != {"_id": 1}]
    for _ in range(2):  # the second start finds what the first has created
        indexes.create(empty[collection], INDEXES[collection], warn=pytest.fail)
        found = meanings(empty, collection)
        assert theirs in found
        assert len(found) == len(INDEXES[collection]) + 2
        for model in INDEXES[collection]:
            assert meaning(model.document) in found


@pytest.mark.parametrize(
    ("collection", "keys", "given", "reason"),
    [
        (
            "sessions",
            "user_id",
            {EXPIRY: 60, "name": "mine"},
            'sessions: the index user_id_1 must have key {"user_id": 1}, expireAfterSeconds "none", but there is mine '
            'with key {"user_id": 1}, expireAfterSeconds 60: drop it with db.sessions.dropIndex',
        ),
    ],
)
def test_an_index_that_cannot_be_accepted_is_named_and_the_service_is_not_ready(
    start: Start,
    empty: Database[Document],
    caplog: pytest.LogCaptureFixture,
    collection: str,
    keys: str,
    given: Document,
    reason: str,
) -> None:
    """A rolling restart stops there, and the other machines serve on."""
    empty[collection].create_index(keys, **given)
    service = start()
    response = service("GET", "/health/ready")
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert reason in caplog.text
    empty[collection].drop_indexes()
    assert_serves(service)


def test_two_users_with_one_name_are_reported_without_the_name(
    start: Start, empty: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    twins = [{"canonical_name": "private-name", "generation": 0} for _ in range(2)]
    empty.users.insert_many(twins)
    service = start()
    assert service("GET", "/health/ready").status_code == 503
    assert "(DuplicateKeyError 11000): several documents have the same canonical_name" in caplog.text
    assert "private-name" not in caplog.text
    empty.users.delete_one({"_id": twins[0]["_id"]})
    assert_serves(service)


def test_a_view_instead_of_a_collection_is_reported(
    start: Start, empty: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    empty.command("create", "attempts", viewOn="sessions", pipeline=[])
    service = start()
    assert service("GET", "/health/ready").status_code == 503
    assert "attempts: the indexes cannot be created (CommandNotSupportedOnView 166)" in caplog.text
    empty.drop_collection("attempts")
    assert_serves(service)


def test_attempts_that_are_counted_in_memory_need_no_collection(start: Start, empty: Database[Document]) -> None:
    empty.command("create", "attempts", viewOn="sessions", pipeline=[])
    assert_serves(start(THROTTLE_STORAGE="memory"))


def test_a_hidden_index_is_reported_and_serves(
    start: Start, empty: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    """It still makes names unique; the operator has hidden it to try what queries cost without it."""
    empty.users.create_index("canonical_name", unique=True, hidden=True)
    assert_serves(start())
    assert "users: the index canonical_name_1 is hidden, so queries do not use it" in caplog.text


def test_indexes_that_disappear_are_created_again(
    start: Start, empty: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example when a backup is restored while the service runs."""
    monkeypatch.setattr("app.database.client.INDEX_CHECK_SECONDS", 0)
    service = start()
    for collection in INDEXES:
        empty.drop_collection(collection)
    assert_serves(service)
    for collection, models in INDEXES.items():
        assert all(meaning(model.document) in meanings(empty, collection) for model in models)


def test_an_index_that_takes_longer_than_a_request_is_completed(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB aborts a build whose client gives up: with the time limit of requests, it would never be completed."""
    create, built = indexes.create, threading.Event()

    def slow(*arguments: Any) -> None:
        assert built.wait(60)
        create(*arguments)

    monkeypatch.setattr(indexes, "create", slow)
    service = start(MONGO_TIMEOUT_SECONDS=0.5)
    assert service("GET", "/health/ready").status_code == 503
    assert "the indexes are not complete yet" in caplog.text
    built.set()
    until(lambda: service("GET", "/health/ready").status_code == 200, "ready with all indexes")


def test_a_build_has_no_time_limit_of_a_request(empty: Database[Document], config: Config) -> None:
    """The driver would send the client's time limit as maxTimeMS, after which the server aborts the build."""
    limits: list[float] = []

    class Commands(CommandListener):
        def started(self, event: CommandStartedEvent) -> None:
            if event.command_name == "createIndexes":
                limits.append(event.command.get("maxTimeMS", math.inf))

        def succeeded(self, event: CommandSucceededEvent) -> None:
            """Ignore."""

        def failed(self, event: CommandFailedEvent) -> None:
            """Ignore."""

    with MongoClient[Document](config.MONGO_URI, timeoutMS=20_000, event_listeners=[Commands()]) as client:
        indexes.create(client[empty.name].users, users.INDEXES, warn=pytest.fail)
    assert limits
    assert min(limits) > 3600 * 1000
