"""Users of the Flask predecessor move in, and log in with the passwords that they have."""

import os
import secrets
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
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.serving import CHECKOUT, started
from tools import migrate_flask_users
from tools.local_mongo import LocalMongo, local_mongo
from tools.migrate_flask_users import apply, main, plan

HASH = pbkdf2_sha256.hash(PASSWORD)
THEN = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)


@pytest.fixture
def uri(mongo_uri: str) -> Iterator[str]:
    """Name a database that is empty, and dropped afterwards."""
    uri = f"{mongo_uri}_flask"
    yield uri
    with MongoClient[Document](uri) as client:
        client.drop_database(client.get_default_database())


@pytest.fixture
def users(uri: str) -> Iterator[Collection[Document]]:
    """Give the predecessor's collection."""
    with MongoClient[Document](uri, tz_aware=True) as client:
        yield client.get_default_database()["users"]


def flask_user(username: Any, **others: Any) -> Document:
    """Return a user as the predecessor wrote him."""
    return {"_id": ObjectId(), "username": username, "password": HASH, "access": Access.USER, **others}


@dataclass(frozen=True)
class Result:
    """What a run of the command came to."""

    returncode: int
    stdout: str
    stderr: str


Migrate = Callable[..., Result]


def environment(uri: str) -> dict[str, str]:
    """Return the settings of the service, of which the command needs one."""
    return {"APP_ENV": "testing", "APP_JWT_SECRET_KEY": secrets.token_urlsafe(48), "APP_MONGO_URI": uri}


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """Give a way to run the command in this process."""

    def migrate(uri: str, *options: str) -> Result:
        for name, value in environment(uri).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["migrate_flask_users", *options])
        capsys.readouterr()
        returncode = main()
        said = capsys.readouterr()
        return Result(returncode, said.out, said.err)

    return migrate


def everything(users: Collection[Document]) -> list[Document]:
    """Return the whole collection."""
    return list(users.find().sort("_id"))


def test_without_a_word_nothing_is_written(uri: str, users: Collection[Document]) -> None:
    """As the page has it, a process of its own."""
    users.insert_many([flask_user("Alice"), flask_user("bob", created_at=THEN)])
    before = everything(users)
    others = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    result = subprocess.run(
        [sys.executable, "-m", "tools.migrate_flask_users"],
        cwd=CHECKOUT,
        env=others | environment(uri),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 to migrate, 0 already migrated, 0 skipped" in result.stdout
    assert everything(users) == before


def test_who_has_moved_in_logs_in_and_the_hash_is_renewed(
    migrate: Migrate, uri: str, users: Collection[Document], config: Config
) -> None:
    users.insert_many([flask_user("Alice"), flask_user("root", access=Access.ADMIN)])
    assert migrate(uri, "--apply").returncode == 0
    # That new passwords have to be longer than theirs shuts nobody out.
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
def test_the_service_does_not_start_before_they_have_moved(
    uri: str, users: Collection[Document], processes: str
) -> None:
    users.insert_one(flask_user("Alice"))
    with started(uri, "--no-motd", processes) as (command, _):
        assert command.wait() == 1
        assert command.output == f"The service cannot start with these settings:\n  MONGO_URI: {NOT_MIGRATED}\n"


def test_a_service_that_is_there_before_them_is_not_ready_until_they_have_moved(
    migrate: Migrate, uri: str, users: Collection[Document], config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of them are one too many for the index that keeps names apart."""
    users.insert_many([flask_user("Alice"), flask_user("bob")])
    carol = {"username": "carol", "password": PASSWORD}
    with Service(config.model_copy(update={"MONGO_URI": uri})) as service:
        for refused in (service("GET", "/health/ready"), service("POST", "/users/registration", json=carol)):
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert "users: the indexes cannot be created (DuplicateKeyError 11000)" in caplog.text
        assert service("GET", "/tests/secret", token="x").status_code == 401, "revocations are followed all the same"
        assert not service.app.ctx.revocations.stale()
        migrate(uri, "--apply")
        assert service("GET", "/health/ready").status_code == 200
        assert service("POST", "/users/registration", json=carol).status_code == 201


def test_whoever_has_not_moved_is_nobody_here(
    migrate: Migrate, uri: str, users: Collection[Document], config: Config
) -> None:
    """Whom the predecessor lets in beside us."""
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


def test_what_the_predecessor_knew_holds_and_the_rest_is_the_default(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    known, bare = flask_user("known", created_at=THEN, access=Access.GUEST), flask_user("bare")
    del bare["access"]
    users.insert_many([known, bare])
    migrate(uri, "--apply")
    given = {"disabled": False, "generation": 0}
    assert everything(users) == [
        {**known, **given, "canonical_name": "known"},
        {**bare, **given, "canonical_name": "bare", "access": Access.USER, "created_at": bare["_id"].generation_time},
    ]


def test_a_second_time_changes_nothing(migrate: Migrate, uri: str, users: Collection[Document]) -> None:
    """Whatever has become of the users since."""
    users.insert_many([flask_user("Alice"), flask_user("bob")])
    migrate(uri, "--apply")
    users.update_one(
        {"username": "bob"}, {"$set": {"disabled": True, "access": Access.GUEST}, "$inc": {"generation": 1}}
    )
    before = everything(users)
    assert "0 migrated, 2 already migrated, 0 skipped" in migrate(uri, "--apply").stdout
    assert everything(users) == before


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([flask_user("Twin"), flask_user("tWIN")], "another user has this name"),
        ([flask_user("fine"), flask_user("fine")], "another user has this name"),
        ([flask_user("al")], "the name is not 3 to 64"),
        ([flask_user("a b\x1b[2J")], "the name is not 3 to 64"),
        ([flask_user("straße")], "the name is not 3 to 64"),
        ([flask_user("trailing\n")], "the name is not 3 to 64"),
        ([flask_user(7)], "the name is not 3 to 64"),
        ([flask_user("strange-id", _id="7")], "the id is not an ObjectId"),
        ([flask_user("plain", password=PASSWORD)], "the password is not stored in a form"),
        ([flask_user("nothing", password=None)], "the password is not stored in a form"),
        ([flask_user("emperor", access=3)], "the access is not"),
        ([flask_user("worded", access="admin")], "the access is not"),
    ],
)
def test_who_cannot_be_told_apart_or_let_in_stays_as_he_is(
    migrate: Migrate, uri: str, users: Collection[Document], bad: list[Document], says: str
) -> None:
    """And everybody else moves in."""
    users.insert_many([*bad, flask_user("good")])
    result = migrate(uri, "--apply")
    assert result.returncode == 1
    *lines, advice = result.stderr.splitlines()
    assert [says in line for line in lines] == [True] * len(bad)
    assert "Rename or remove" in advice
    assert f"1 migrated, 0 already migrated, {len(bad)} skipped" in result.stdout
    assert "\x1b" not in result.stderr
    assert HASH not in result.stderr + result.stdout
    assert list(users.find({"canonical_name": None})) == bad


def test_a_name_that_somebody_has_here_already_is_not_given_twice(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    newcomer = {**flask_user("Alice"), "canonical_name": "alice"}
    users.insert_many([newcomer, flask_user("ALICE")])
    result = migrate(uri, "--apply")
    assert "another user has this name" in result.stderr
    assert users.count_documents({"canonical_name": "alice"}) == 1


def test_the_service_can_start_once_nobody_is_left_who_could_not_move_in(
    migrate: Migrate, uri: str, users: Collection[Document]
) -> None:
    """Two of them are one too many for the index that keeps names apart."""
    users.insert_many([flask_user("a b"), flask_user("c d")])
    assert migrate(uri, "--apply").returncode == 1
    with pytest.raises(DuplicateKeyError):
        users.create_indexes(INDEXES)
    for user in users.find():
        users.update_one({"_id": user["_id"]}, {"$set": {"username": user["username"].replace(" ", "_")}})
    assert migrate(uri, "--apply").returncode == 0
    users.create_indexes(INDEXES)


def test_it_gives_all_that_a_new_user_has(users: Collection[Document]) -> None:
    """Or the service would stumble over whom it has let in."""
    old = flask_user("Alice")
    users.insert_one(old)
    migrated = {**old, **plan(users).changes[old["_id"]]}
    written: list[Document] = []

    class Collecting:
        async def prepare(self) -> None:
            """Have no indexes."""

        async def insert(self, document: Document) -> None:
            """Keep it."""
            written.append(document)

    adding = Users(Collecting(), None).add(User.new("Alice", HASH))  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        adding.send(None)
    assert {name: type(value) for name, value in migrated.items()} | {"access": Access} == {
        name: type(value) for name, value in written[0].items()
    }


def test_a_database_that_is_away_is_one_line_without_its_password(
    migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_flask_users, "DATABASE_TIMEOUT_MILLISECONDS", 200)
    result = migrate("mongodb://user:hidden-word@127.0.0.1:9/x")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "is MONGO_URI right?" in result.stderr
    assert "hidden-word" not in result.stderr + result.stdout


def test_a_database_that_freezes_half_way_ends_it_and_it_goes_on_another_time(
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
            began = time.monotonic()
            result = migrate(mongo.uri, "--apply")
            assert time.monotonic() - began < 5
        assert (result.returncode, "Run it again" in result.stderr) == (2, True)
        mongo.resume()
        assert migrate(mongo.uri, "--apply").returncode == 0
        assert users.count_documents({"canonical_name": None}) == 0


def test_settings_that_are_wrong_are_named(migrate: Migrate) -> None:
    result = migrate("nowhere")
    assert (result.returncode, "MONGO_URI: is not a MongoDB" in result.stderr) == (2, True)
