"""Migration of the Flask predecessor's users, who keep their passwords."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from passlib.hash import pbkdf2_sha256
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from app.models.users import INDEXES, NOT_MIGRATED, Access, User, Users
from config import Config
from tests.conftest import PASSWORD, Actor, Document, Service, drop_database
from tests.serving import CHECKOUT, environment, started
from tools import migrate_flask_users
from tools.local_mongo import LocalMongo, local_mongo
from tools.migrate_flask_users import apply, main, plan

HASH = pbkdf2_sha256.hash(PASSWORD)
CREATED_AT = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)


@pytest.fixture
def uri(mongo_uri: str) -> Iterator[str]:
    """Yield the URI of an empty database, and drop it afterwards."""
    uri = f"{mongo_uri}_flask"
    yield uri
    drop_database(uri)


@pytest.fixture
def users(uri: str) -> Iterator[Collection[Document]]:
    """Yield the predecessor's collection of users."""
    with MongoClient[Document](uri, tz_aware=True) as client:
        yield client.get_default_database()["users"]


def flask_user(username: Any, **others: Any) -> Document:
    """Return a user as the predecessor stores it."""
    return {"_id": ObjectId(), "username": username, "password": HASH, "access": Access.USER, **others}


@dataclass(frozen=True)
class Result:
    """The result of one run of the command."""

    returncode: int
    stdout: str
    stderr: str


Migrate = Callable[..., Result]


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """Return a function that runs the command in this process."""

    def migrate(uri: str, *options: str) -> Result:
        for name, value in environment(uri).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["migrate_flask_users", *options])
        capsys.readouterr()
        returncode = main()
        captured = capsys.readouterr()
        return Result(returncode, captured.out, captured.err)

    return migrate


def all_users(users: Collection[Document]) -> list[Document]:
    """Return all users of the collection."""
    return list(users.find().sort("_id"))


def test_without_apply_nothing_is_written(uri: str, users: Collection[Document]) -> None:
    """Runs the command in a separate process, as documented."""
    users.insert_many([flask_user("Alice"), flask_user("bob", created_at=CREATED_AT)])
    before = all_users(users)
    result = subprocess.run(
        [sys.executable, "-m", "tools.migrate_flask_users"],
        cwd=CHECKOUT,
        env=environment(uri),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 to migrate, 0 already migrated, 0 skipped" in result.stdout
    assert all_users(users) == before


def test_migrated_users_log_in_and_get_a_new_hash(
    migrate: Migrate, uri: str, users: Collection[Document], config: Config
) -> None:
    users.insert_many([flask_user("Alice"), flask_user("root", access=Access.ADMIN)])
    assert migrate(uri, "--apply").returncode == 0
    # The minimum length is for new passwords only: users with shorter ones can log in.
    with Service(config.model_copy(update={"MONGO_URI": uri, "PASSWORD_MIN_LENGTH": 64})) as service:
        alice, root = (Actor(service, name, {}).log_in() for name in ("aLICE", "root"))
        assert alice.get("/auth/me").json()["username"] == "Alice"
        assert [user["access"] for user in root.get("/users").json()["users"]] == ["user", "admin"]
        assert alice.log_in().secret_status == 200
        taken = service("POST", "/users/registration", json={"username": "ALICE", "password": 3 * PASSWORD})
        assert taken.status_code == 409
    for user in users.find():
        assert user["password"].startswith("$argon2id$")


@pytest.mark.parametrize("processes", ["--workers=2", "--single-process"])
def test_the_service_does_not_start_before_the_migration(uri: str, users: Collection[Document], processes: str) -> None:
    users.insert_one(flask_user("Alice"))
    with started(uri, "--no-motd", processes) as (command, _):
        assert command.wait() == 1
        assert command.output == f"The service cannot start with these settings:\n  MONGO_URI: {NOT_MIGRATED}\n"


def test_a_running_service_is_not_ready_until_the_users_are_migrated(
    migrate: Migrate, uri: str, users: Collection[Document], config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Two users without a canonical name violate the unique index."""
    users.insert_many([flask_user("Alice"), flask_user("bob")])
    carol = {"username": "carol", "password": PASSWORD}
    with Service(config.model_copy(update={"MONGO_URI": uri})) as service:
        for rejected in (service("GET", "/health/ready"), service("POST", "/users/registration", json=carol)):
            assert (rejected.status_code, rejected.json()["code"]) == (503, "store_unavailable")
        assert "users: the indexes cannot be created (DuplicateKeyError 11000)" in caplog.text
        assert service("GET", "/tests/secret", token="x").status_code == 401, "the service still follows revocations"
        assert not service.app.ctx.revocations.stale()
        migrate(uri, "--apply")
        assert service("GET", "/health/ready").status_code == 200
        assert service("POST", "/users/registration", json=carol).status_code == 201


def test_the_service_ignores_users_that_are_not_migrated(
    migrate: Migrate, uri: str, users: Collection[Document], config: Config
) -> None:
    """The predecessor registers such users while it runs beside the service."""
    users.insert_one(flask_user("root", access=Access.ADMIN))
    migrate(uri, "--apply")
    with Service(config.model_copy(update={"MONGO_URI": uri})) as service:
        root = Actor(service, "root", {}).log_in()
        late = flask_user("Alice")
        users.insert_one(late)
        assert [user["username"] for user in root.get("/users").json()["users"]] == ["root"]
        assert root.get(f"/users/{late['_id']}").status_code == 404
        login = service("POST", "/auth", json={"username": "Alice", "password": PASSWORD})
        assert (login.status_code, login.json()["code"]) == (401, "wrong_credentials")


def test_an_address_that_a_clone_has_added_is_to_be_verified(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    users.insert_many([flask_user("Alice", email="Alice@Example.com"), flask_user("bob", email=["no address"])])
    result = migrate(uri, "--apply")
    assert (result.returncode, "'bob': the email is not an address" in result.stderr) == (1, True)
    alice = User.from_document(users.find_one({"username": "Alice"}) or {})
    assert alice.email
    assert (alice.email.address, alice.email.key) == ("Alice@example.com", "alice@example.com")
    assert alice.address is None
    assert not alice.damaged


def test_stored_values_are_kept_and_missing_values_get_defaults(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    known, bare = flask_user("known", created_at=CREATED_AT, access=Access.GUEST), flask_user("bare")
    del bare["access"]
    users.insert_many([known, bare])
    migrate(uri, "--apply")
    defaults = {"disabled": False, "generation": 0, "usual_networks": []}
    assert all_users(users) == [
        {**known, **defaults, "canonical_name": "known"},
        {
            **bare,
            **defaults,
            "canonical_name": "bare",
            "access": Access.USER,
            "created_at": bare["_id"].generation_time,
        },
    ]


def test_a_second_migration_changes_nothing(migrate: Migrate, uri: str, users: Collection[Document]) -> None:
    """It keeps changes that were made to the users after the first one."""
    users.insert_many([flask_user("Alice"), flask_user("bob")])
    migrate(uri, "--apply")
    users.update_one(
        {"username": "bob"}, {"$set": {"disabled": True, "access": Access.GUEST}, "$inc": {"generation": 1}}
    )
    before = all_users(users)
    assert "0 migrated, 2 already migrated, 0 skipped" in migrate(uri, "--apply").stdout
    assert all_users(users) == before


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([flask_user("Twin"), flask_user("tWIN")], "another user has this name"),
        ([flask_user("fine"), flask_user("fine")], "another user has this name"),
        ([flask_user("al")], "the name is not 3 to 64"),
        ([flask_user("a b\x1b[2J")], "the name is not 3 to 64"),
        ([flask_user("straße")], "the name is not 3 to 64"),
        ([flask_user("trailing\n")], "the name is not 3 to 64"),
        ([flask_user(7)], "the name is not 3 to 64"),
        ([flask_user("strange-id", _id="7")], "the id is not an ObjectId"),
        ([flask_user("plain", password=PASSWORD)], "the password is not stored in a format"),
        ([flask_user("nothing", password=None)], "the password is not stored in a format"),
        ([flask_user("emperor", access=3)], "the access is not"),
        ([flask_user("worded", access="admin")], "the access is not"),
    ],
)
def test_users_that_cannot_be_migrated_are_reported_and_not_changed(
    migrate: Migrate, uri: str, users: Collection[Document], bad: list[Document], reason: str
) -> None:
    """All other users are migrated."""
    users.insert_many([*bad, flask_user("good")])
    result = migrate(uri, "--apply")
    assert result.returncode == 1
    *lines, advice = result.stderr.splitlines()
    assert [reason in line for line in lines] == [True] * len(bad)
    assert "Rename or remove" in advice
    assert f"1 migrated, 0 already migrated, {len(bad)} skipped" in result.stdout
    assert "\x1b" not in result.stderr
    assert HASH not in result.stderr + result.stdout
    assert list(users.find({"canonical_name": None})) == bad


def test_a_username_that_is_already_migrated_is_not_used_twice(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    existing = {**flask_user("Alice"), "canonical_name": "alice"}
    users.insert_many([existing, flask_user("ALICE")])
    result = migrate(uri, "--apply")
    assert "another user has this name" in result.stderr
    assert users.count_documents({"canonical_name": "alice"}) == 1


def test_the_indexes_can_be_created_once_all_users_are_migrated(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    """Two users without a canonical name violate the unique index."""
    users.insert_many([flask_user("a b"), flask_user("c d")])
    assert migrate(uri, "--apply").returncode == 1
    with pytest.raises(DuplicateKeyError):
        users.create_indexes(INDEXES)
    for user in users.find():
        users.update_one({"_id": user["_id"]}, {"$set": {"username": user["username"].replace(" ", "_")}})
    assert migrate(uri, "--apply").returncode == 0
    users.create_indexes(INDEXES)


def test_a_migrated_user_has_the_fields_of_a_new_user(users: Collection[Document]) -> None:
    """Otherwise the service would fail on migrated users."""
    old = flask_user("Alice")
    users.insert_one(old)
    migrated = {**old, **plan(users).changes[old["_id"]]}
    written: list[Document] = []

    class RecordingCollection:
        async def prepare(self) -> None:
            """Create no indexes."""

        async def insert(self, document: Document) -> None:
            """Record the document."""
            written.append(document)

    adding = Users(RecordingCollection(), None).add(User.new("Alice", HASH))  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        adding.send(None)
    assert {name: type(value) for name, value in migrated.items()} | {"access": Access} == {
        name: type(value) for name, value in written[0].items()
    }


def test_an_unavailable_database_is_reported_in_one_line_without_its_password(
    migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_flask_users, "DATABASE_TIMEOUT_MILLISECONDS", 200)
    result = migrate("mongodb://user:hidden-word@127.0.0.1:9/x")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "is MONGO_URI right?" in result.stderr
    assert "hidden-word" not in result.stderr + result.stdout


def test_a_migration_that_a_frozen_database_stops_continues_on_the_next_run(
    migrate: Migrate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with local_mongo(tmp_path) as mongo, MongoClient[Document](mongo.uri) as client:
        assert isinstance(mongo, LocalMongo)
        users = client.get_default_database()["users"]
        users.insert_many([flask_user("Alice"), flask_user("bob")])

        def freeze(users: Collection[Document], changes: dict[ObjectId, Document]) -> None:
            first, second = changes.items()
            apply(users, dict([first]))
            mongo.pause()
            apply(users, dict([second]))

        with monkeypatch.context() as patched:
            patched.setattr(migrate_flask_users, "DATABASE_TIMEOUT_MILLISECONDS", 500)
            patched.setattr(migrate_flask_users, "apply", freeze)
            start = time.monotonic()
            result = migrate(mongo.uri, "--apply")
            assert time.monotonic() - start < 30
        assert (result.returncode, "Run it again" in result.stderr) == (2, True)
        mongo.resume()
        assert migrate(mongo.uri, "--apply").returncode == 0
        assert users.count_documents({"canonical_name": None}) == 0


def test_invalid_settings_are_named(migrate: Migrate) -> None:
    result = migrate("nowhere")
    assert (result.returncode, "MONGO_URI (environment): is not a MongoDB" in result.stderr) == (2, True)
