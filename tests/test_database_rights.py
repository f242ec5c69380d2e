"""A database that requires authentication: what its user may not do is named, at the start and by readiness."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pymongo import MongoClient

from app.database.rights import missing
from config import Config
from config.product import NAME
from tests.conftest import PASSWORD, Document, Service
from tests.processes import until
from tests.serving import started
from tools.local_mongo import LocalMongo

NEEDED = ["find", "insert", "update", "remove"]
COLLECTIONS = ["users", "sessions", "attempts", "locks", "health"]
OTHER = "other"  # a database with a name of its own

Login = Callable[..., str]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMongo]:
    """Run a MongoDB that requires authentication, with the administrator root."""
    folder = tmp_path_factory.mktemp("strict")
    key = folder / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    with ExitStack() as stack:
        open_mongo = LocalMongo(folder / "mongodb")
        stack.callback(open_mongo.stop)
        open_mongo.start()
        with MongoClient[Document](open_mongo.uri) as client:
            client.admin.command("createUser", "root", pwd="right", roles=["root"])
        open_mongo.stop()
        # Members of a replica set that require authentication authenticate to each other with a key file.
        mongo = LocalMongo(folder / "mongodb", open_mongo.port, ["--keyFile", str(key)])
        stack.callback(mongo.stop)
        mongo.start()
        yield mongo


@pytest.fixture
def root(strict: LocalMongo) -> Iterator[MongoClient[Document]]:
    """Yield a client with all rights, and drop the databases afterwards."""
    with MongoClient[Document](uri(strict, "root:right")) as client:
        yield client
        for name in (NAME, OTHER):
            client.drop_database(name)


def uri(mongo: LocalMongo, login: str, database: str = OTHER) -> str:
    """Return the URI for a login."""
    return f"mongodb://{login}@127.0.0.1:{mongo.port}/{database}?authSource=admin"


@pytest.fixture
def login(strict: LocalMongo, root: MongoClient[Document]) -> Login:
    """Return a function that makes a user of the database, and returns the URI that logs in."""

    def login(roles: list[Any], privileges: list[Document] | None = None, *, database: str = OTHER) -> str:
        name = f"user-{secrets.token_hex(4)}"
        if privileges is not None:
            root.admin.command("createRole", f"role-{name}", privileges=privileges, roles=[])
            roles = [*roles, f"role-{name}"]
        root.admin.command("createUser", name, pwd="hidden-word", roles=roles)
        return uri(strict, f"{name}:hidden-word", database)

    return login


def privilege(actions: list[str], collection: str = "", database: str = OTHER) -> Document:
    """Return a privilege of a role."""
    return {"resource": {"db": database, "collection": collection}, "actions": actions}


READ_WRITE = [{"role": "readWrite", "db": OTHER}]
ALL = [*NEEDED, "createIndex", "listIndexes", "collMod"]


def test_a_user_with_the_documented_role_serves(config: Config, login: Login) -> None:
    with Service(config.model_copy(update={"MONGO_URI": login(READ_WRITE)})) as service:
        assert service("GET", "/health/ready").status_code == 200
        body = {"username": "alice", "password": PASSWORD}
        assert service("POST", "/users/registration", json=body).status_code == 201


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        (["find", "createIndex", "listIndexes"], "the user may not insert and update and remove in health, "),
        ([action for action in ALL if action != "insert"], "the user may not insert in health, insert in users, "),
        ([action for action in ALL if action != "remove"], "the user may not remove in health, remove in users, "),
        ([*NEEDED, "listIndexes"], "the user may not createIndexes in users of the database other (Unauthorized 13)"),
        (["listIndexes"], "the user may not find in sessions of the database other (Unauthorized 13)"),
    ],
    ids=["read-only", "insert", "remove", "createIndex", "find"],
)
def test_missing_rights_make_the_service_not_ready_and_are_logged_once(
    config: Config,
    login: Login,
    root: MongoClient[Document],
    caplog: pytest.LogCaptureFixture,
    actions: list[str],
    reason: str,
) -> None:
    """Granted later, they take effect without a restart."""
    uri_of_user = login([], [privilege(actions)])
    with Service(config.model_copy(update={"MONGO_URI": uri_of_user})) as service:
        for _ in range(3):
            response = service("GET", "/health/ready")
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            service("POST", "/users/registration", json={"username": "private-name", "password": PASSWORD})
        assert "private-name" not in caplog.text
        reasons = [line.partition("the user may not")[2] for line in caplog.messages if "may not" in line]
        assert len(reasons) == len(set(reasons))
        assert any(reason in line for line in caplog.messages)
        root.admin.command("grantRolesToUser", name_of(uri_of_user), roles=READ_WRITE)
        until(lambda: service("GET", "/health/ready").status_code == 200, "ready with all rights")


def name_of(uri_of_user: str) -> str:
    """Return the name of the database's user."""
    return uri_of_user.partition("//")[2].partition(":")[0]


def test_rights_that_are_taken_away_are_noticed(
    config: Config, login: Login, root: MongoClient[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.client.CHECK_SECONDS", 0)
    uri_of_user = login(READ_WRITE)
    name = name_of(uri_of_user)
    with Service(config.model_copy(update={"MONGO_URI": uri_of_user})) as service:
        assert service("GET", "/health/ready").status_code == 200
        root.admin.command("revokeRolesFromUser", name, roles=READ_WRITE)
        root.admin.command("grantRolesToUser", name, roles=[{"role": "read", "db": OTHER}])
        assert service("GET", "/health/ready").status_code == 503


def test_a_user_who_may_not_create_indexes_serves_with_those_that_exist(
    config: Config, login: Login, root: MongoClient[Document], caplog: pytest.LogCaptureFixture
) -> None:
    """Where only database administrators may create indexes."""
    with Service(config.model_copy(update={"MONGO_URI": login(READ_WRITE)})) as service:
        assert service("GET", "/health/ready").status_code == 200
    with Service(config.model_copy(update={"MONGO_URI": login([], [privilege([*NEEDED, "listIndexes"])])})) as service:
        assert service("GET", "/health/ready").status_code == 200
    root[OTHER].sessions.drop_index("ended_at_1")
    with Service(config.model_copy(update={"MONGO_URI": login([], [privilege([*NEEDED, "listIndexes"])])})) as service:
        assert service("GET", "/health/ready").status_code == 503
    assert "sessions: the user may not createIndexes in sessions of the database other (Unauthorized 13)" in caplog.text
    assert 'there is no index with key {"ended_at": 1}' in caplog.text


@pytest.mark.parametrize(
    ("database", "reason"),
    [
        ("", f"the user may not use the database {NAME}, which is taken because the URI names none"),
        ("named", "the user may not find in users of the database named (Unauthorized 13)"),
    ],
)
def test_a_database_that_the_user_may_not_use_stops_the_start(login: Login, database: str, reason: str) -> None:
    """Unauthorized (13) is not AuthenticationFailed (18)."""
    with started(login(READ_WRITE, database=database), "--single-process", "--no-motd") as (command, _):
        assert command.wait() == 1
        assert command.output == f"The service cannot start with these settings:\n  MONGO_URI: {reason}\n"


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        ("root:hidden-word@", "the database rejects this user name and password"),
        ("nobody:hidden-word@", "the database rejects this user name and password"),
        ("", "the database requires a user name and a password (Unauthorized 13)"),
    ],
    ids=["wrong password", "unknown user", "none"],
)
def test_rejected_credentials_stop_the_start(strict: LocalMongo, credentials: str, reason: str) -> None:
    uri = f"mongodb://{credentials}127.0.0.1:{strict.port}/{OTHER}" + ("?authSource=admin" if credentials else "")
    with started(uri, "--single-process", "--no-motd") as (command, _):
        assert command.wait() == 1
        assert command.output == f"The service cannot start with these settings:\n  MONGO_URI: {reason}\n"


def status(*privileges: Document, users: int = 1) -> Document:
    """Return a response to connectionStatus."""
    return {"authInfo": {"authenticatedUsers": [{}] * users, "authenticatedUserPrivileges": list(privileges)}}


@pytest.mark.parametrize(
    ("privileges", "lacking"),
    [
        ([privilege(NEEDED)], None),
        ([privilege(NEEDED, database="")], None),
        ([privilege(NEEDED, collection="users"), privilege(NEEDED, "sessions")], None),
        ([{"resource": {"anyResource": True}, "actions": ["anyAction"]}], None),
        ([privilege(NEEDED[:2]), privilege(NEEDED[2:])], None),
        ([privilege(NEEDED, database="another")], "the user may not find and insert and update and remove in users, "),
        ([{"resource": {"cluster": True}, "actions": NEEDED}], "the user may not find and insert"),
        ([privilege(NEEDED, "users")], "the user may not find and insert and update and remove in sessions of "),
        ([privilege(NEEDED[:3])], "the user may not remove in users, remove in sessions of the database other"),
        ([], "the user may not find and insert"),
    ],
)
def test_privileges_are_read_as_mongodb_applies_them(privileges: list[Document], lacking: str | None) -> None:
    found = missing(status(*privileges), OTHER, ["users", "sessions"])
    assert (found or "").startswith(lacking or "\0") == (lacking is not None)
    assert (found is None) == (lacking is None)


def test_without_authentication_everything_is_allowed() -> None:
    assert missing(status(users=0), OTHER, ["users"]) is None
