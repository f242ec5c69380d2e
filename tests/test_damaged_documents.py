"""What is in the database is not believed: one damaged document takes nothing away from others, and can be removed."""

import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from bson import Binary, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from passlib.hash import argon2, pbkdf2_sha256
from pymongo import MongoClient
from pymongo.database import Database

from app.models.sessions import Session
from app.models.users import Access, startup_error, startup_warning
from app.security import passwords
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.serving import started
from tests.test_commands import command  # noqa: F401 - a fixture

MISSING = object()
BAD_TEXT = RawBSONDocument(b"\x0f\x00\x00\x00\x02x\x00\x03\x00\x00\x00\xff\xfe\x00\x00")  # a text that is not UTF-8
FAR = DatetimeMS(2**62)  # a time out of Python's range

# A value of another type for each field of a user.
USER_FIELDS: dict[str, list[Any]] = {
    "username": [MISSING, 7, None, ["a"], "", "x" * 65],
    "canonical_name": [MISSING, 7, {"a": 1}],
    "password": [MISSING, 7, None, "", Binary(b"$argon2id$"), ["x"]],
    "access": [MISSING, 7, "user", None, True, 1.5, -1, math.nan, Decimal128("1"), [1]],
    "disabled": [MISSING, 0, None, "false", [False]],
    "generation": [MISSING, "0", None, -1, math.inf, 2**62, Timestamp(1, 1)],
    "created_at": [MISSING, "2026-11-25", 7, None, FAR, DatetimeMS(-(2**62)), Timestamp(1, 1)],
    "usual_networks": [7, None, "127.0.0.1", [7], {"0": "x"}],
    "deleted": [7, "no", None, {}],
}


def name_of(case: Any) -> str:
    """Return a name for a test case."""
    return "missing" if case is MISSING else str(case)[:30]


def set_field(database: Database[Document], collection: str, document_id: Any, field: str, value: Any) -> None:
    """Write a value, or remove the field."""
    change = {"$unset": {field: True}} if value is MISSING else {"$set": {field: value}}
    assert database[collection].update_one({"_id": document_id}, change).matched_count


@pytest.fixture
def log_in(service: Service) -> Callable[[str], httpx.Response]:
    """Return a function that tries to log in with the password of every actor."""
    return lambda username: service("POST", "/auth", json={"username": username, "password": PASSWORD})


@pytest.fixture
def copy_of(database: Database[Document]) -> Iterator[Callable[[Actor], tuple[str, str]]]:
    """Yield a function that copies the document of a user, and returns the copy's id and name."""
    copies: list[ObjectId] = []

    def copy(actor: Actor) -> tuple[str, str]:
        document = database.users.find_one({"_id": ObjectId(actor.claims["sub"])})
        assert document
        copies.append(ObjectId())
        name = f"Copy-{copies[-1]}"
        database.users.insert_one({**document, "_id": copies[-1], "username": name, "canonical_name": name.lower()})
        return str(copies[-1]), name

    yield copy
    database.users.delete_many({"_id": {"$in": copies}})


@pytest.mark.parametrize("field", USER_FIELDS)
def test_a_damaged_user_is_listed_rejected_named_once_and_deleted(
    service: Service,
    admin: Actor,
    alice: Actor,
    copy_of: Callable[[Actor], tuple[str, str]],
    database: Database[Document],
    caplog: pytest.LogCaptureFixture,
    log_in: Callable[[str], httpx.Response],
    field: str,
) -> None:
    """The user counts as disabled, and no other user notices."""
    unknown = log_in(f"unknown-{ObjectId()}")
    damaged = []
    for value in USER_FIELDS[field]:
        user_id, username = copy_of(alice)
        set_field(database, "users", ObjectId(user_id), field, value)
        damaged.append(user_id)
        login = log_in(username)
        assert login.status_code == 401, value
        assert {**login.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
        assert login.headers["www-authenticate"] == unknown.headers["www-authenticate"]
    listed = {user["id"]: user for user in all_users(admin)}
    assert listed[alice.claims["sub"]]["disabled"] is False
    assert log_in(alice.username).status_code == 200
    for user_id in damaged:
        shown = admin.get(f"/users/{user_id}").json()
        assert shown == listed[user_id]
        assert set(shown) == {"id", "username", "access", "disabled", "created_at", "email", "email_verified"}
        assert (shown["id"], shown["disabled"]) == (user_id, True)
        assert datetime.fromisoformat(shown["created_at"]) <= datetime.now(UTC)
        line = f"users: the document {user_id} cannot be used as it is: the user counts as disabled because of {field}"
        assert caplog.messages.count(line) == 1
        assert service("DELETE", f"/users/{user_id}", token=admin.tokens["access_token"]).status_code == 204
        assert admin.get(f"/users/{user_id}").status_code == 404
        assert database.users.find_one({"_id": ObjectId(user_id)}) is None


def test_the_owner_of_a_damaged_document_sees_a_disabled_user(bob: Actor, database: Database[Document]) -> None:
    """An access token that was issued before is valid until it expires."""
    set_field(database, "users", ObjectId(bob.claims["sub"]), "access", 7)
    me = bob.get("/auth/me")
    assert (me.status_code, me.json()["access"], me.json()["disabled"]) == (200, "guest", True)
    assert bob.post("/auth/logout-all").status_code == 204
    assert bob.secret_status == 401


def all_users(admin: Actor) -> list[Document]:
    """Return all users, page by page."""
    users: list[Document] = []
    after = ""
    while True:
        response = admin.get(f"/users?limit=3{after}")
        assert response.status_code == 200, response.text
        users += response.json()["users"]
        if response.json()["next"] is None:
            return users
        after = f"&after={response.json()['next']}"


@pytest.mark.parametrize(
    ("field", "value", "change"),
    [("access", 7, {"access": "user"}), ("disabled", MISSING, {"disabled": False})],
    ids=["access", "disabled"],
)
def test_an_administrator_repairs_what_a_change_can_set(
    service: Service,
    admin: Actor,
    bob: Actor,
    database: Database[Document],
    log_in: Callable[[str], httpx.Response],
    field: str,
    value: Any,
    change: Document,
) -> None:
    user_id = bob.claims["sub"]
    set_field(database, "users", ObjectId(user_id), field, value)
    changed = service("PATCH", f"/users/{user_id}", token=admin.tokens["access_token"], json=change)
    assert (changed.status_code, changed.json()["disabled"]) == (200, False)
    assert log_in(bob.username).status_code == 200


@pytest.mark.parametrize("field", ["access", "disabled", "generation", "password", "username", "created_at"])
def test_the_command_line_lists_disables_and_deletes_a_damaged_user(
    command: Callable[..., None],  # noqa: F811
    alice: Actor,
    bob: Actor,
    register: Callable[..., Actor],
    database: Database[Document],
    capsys: pytest.CaptureFixture[str],
    field: str,
) -> None:
    user_id, later = bob.claims["sub"], register()
    set_field(database, "users", ObjectId(user_id), field, MISSING)
    command("list-users")
    rows = {row.split("\t")[0]: row.split("\t") for row in capsys.readouterr().out.splitlines()}
    assert rows[user_id][2] == f"damaged: {field}"
    assert rows[alice.claims["sub"]][2:] == ["enabled", alice.username]
    assert rows[later.claims["sub"]][2:] == ["enabled", later.username]
    command("disable-user", f"--username={bob.username}")
    stored = database.users.find_one({"_id": ObjectId(user_id)})
    assert stored
    assert stored["disabled"] is True
    assert bob.refresh().status_code == 401
    command("delete-user", f"--id={user_id}")
    assert database.users.find_one({"_id": ObjectId(user_id)}) is None


def test_a_name_with_control_characters_is_escaped_in_the_list(
    command: Callable[..., None],  # noqa: F811
    bob: Actor,
    database: Database[Document],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another program may store what terminals interpret (CWE-150)."""
    set_field(database, "users", ObjectId(bob.claims["sub"]), "username", "a\x1b[2J\tb\n")
    command("list-users")
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith(bob.claims["sub"]))
    assert row.split("\t")[3] == r"'a\x1b[2J\tb\n'"


def test_a_damaged_administrator_does_not_count_as_another_one(
    service: Service, appoint: Callable[[], Actor], database: Database[Document]
) -> None:
    """Or the last administrator who can log in could be removed."""
    admin, damaged = appoint(), appoint()
    set_field(database, "users", ObjectId(damaged.claims["sub"]), "password", 7)
    user = f"/users/{admin.claims['sub']}"
    response = service("PATCH", user, token=admin.tokens["access_token"], json={"access": "user"})
    assert (response.status_code, response.json()["code"]) == (409, "last_admin")
    assert damaged.get("/users").status_code == 403
    set_field(database, "users", ObjectId(damaged.claims["sub"]), "password", "$argon2id$")
    assert service("DELETE", f"/users/{damaged.claims['sub']}", token=admin.tokens["access_token"]).status_code == 204


def test_a_text_that_is_not_utf8_and_a_time_out_of_range_fail_no_page(
    admin: Actor, alice: Actor, bob: Actor, database: Database[Document]
) -> None:
    """By default, the driver could not decode any document of the response."""
    key = {"_id": ObjectId(bob.claims["sub"])}
    database.users.update_one(key, {"$set": {"other": BAD_TEXT, "when": FAR}})
    names = [user["username"] for user in all_users(admin)]
    assert {alice.username, bob.username} <= set(names)
    assert bob.log_in().secret_status == 200


def test_the_number_of_damaged_users_in_the_log_is_bounded(
    service: Service, database: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    users = [{"_id": ObjectId(), "canonical_name": str(ObjectId()), "generation": 0} for _ in range(300)]
    database.users.insert_many(users)
    try:
        for _ in range(3):
            assert len(service.run(service.app.ctx.users.page(None, 10_000))) >= len(users)
        assert len([line for line in caplog.messages if "cannot be used as it is" in line]) <= 100
    finally:
        database.users.delete_many({"_id": {"$in": [user["_id"] for user in users]}})
        service.app.ctx.database.collections["users"]._reports.recovered()


# Password hashes

HASH = argon2.using(type="ID", memory_cost=19 * 1024, rounds=2, parallelism=1).hash(PASSWORD)
PBKDF2 = pbkdf2_sha256.using(rounds=1000).hash(PASSWORD)


HASHES = {
    "plain text": "plain text",
    "shortened": HASH[:-2],  # never base64; one in 16 that lack five characters is the hash of another password
    "without digest": HASH[:40],
    "followed by NUL": HASH + "\0",
    "followed by a letter": HASH + "é",
    "gigabytes": HASH.replace("m=19456", "m=4000000"),
    "minutes": HASH.replace("t=2", "t=100000"),
    "no lane": HASH.replace("p=1", "p=0"),
    "keyid": HASH.replace("p=1", "p=1,keyid=abc"),
    "version": HASH.replace("v=19", "v=99999999999"),
    "shortened PBKDF2": PBKDF2[:-5],
    "minutes of PBKDF2": PBKDF2.replace("$1000$", "$4000000000$"),
    "PBKDF2 without digest": PBKDF2.rpartition("$")[0],
    "bcrypt": "$2b$12$" + "a" * 53,
    "long": "$argon2id$" + "a" * 100_000,
}


@pytest.mark.parametrize("stored", HASHES.values(), ids=HASHES)
def test_a_damaged_hash_is_a_wrong_password(
    alice: Actor,
    database: Database[Document],
    caplog: pytest.LogCaptureFixture,
    log_in: Callable[[str], httpx.Response],
    stored: str,
) -> None:
    """Also one whose verification would take minutes or gigabytes."""
    user_id = alice.claims["sub"]
    set_field(database, "users", ObjectId(user_id), "password", stored)
    for _ in range(2):
        login = log_in(alice.username)
        assert (login.status_code, login.json()["code"]) == (401, "wrong_credentials")
    change = {"current_password": PASSWORD, "new_password": "a quite different sentence"}
    assert alice.post("/users/me/password", change).status_code == 401
    assert alice.get("/auth/me").status_code == 200
    lines = [line for line in caplog.messages if "cannot be verified" in line]
    assert lines == [f"users: the document {user_id} cannot be used as it is: its password hash cannot be verified"]


def test_a_damaged_hash_costs_as_much_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick rejection would reveal which user it is (user enumeration by timing)."""
    verified: list[tuple[str, str]] = []

    def record(password: str, password_hash: str) -> bool:
        verified.append((password, password_hash))
        return True

    monkeypatch.setattr(passwords.CONTEXT, "verify", record)
    with pytest.raises(passwords.UnusableHash):
        passwords._verify(PASSWORD, "damaged", HASH)
    assert verified == [(PASSWORD, HASH)]


# Ids


@pytest.mark.parametrize("strange", ["alice@example.com", 7, Binary(b"x" * 16, 4), {"a": 1}, True, MinKey(), MaxKey()])
def test_a_user_whose_id_is_no_objectid_cannot_log_in_and_the_log_says_so(
    admin: Actor,
    alice: Actor,
    database: Database[Document],
    caplog: pytest.LogCaptureFixture,
    log_in: Callable[[str], httpx.Response],
    strange: Any,
) -> None:
    """The id may be a name or an address, which are private."""
    document = database.users.find_one({"_id": ObjectId(alice.claims["sub"])})
    assert document
    name = f"strange-{ObjectId()}"
    database.users.insert_one({**document, "_id": strange, "username": name, "canonical_name": name})
    try:
        assert log_in(name).json()["code"] == "wrong_credentials"
        assert alice.username in [user["username"] for user in all_users(admin)]
        assert name not in [user["username"] for user in all_users(admin)]
        assert "users: the document with an _id of the type " in caplog.text
        assert "alice@example.com" not in caplog.text
    finally:
        database.users.delete_one({"_id": strange})


@pytest.fixture
def separate(mongo_uri: str) -> Iterator[Database[Document]]:
    """Yield a database for a service in another process, and drop it afterwards."""
    with MongoClient[Document](f"{mongo_uri}_damaged", tz_aware=True) as client:
        yield client.get_default_database()
        client.drop_database(client.get_default_database())


@pytest.mark.parametrize("strange", ["a-name", MaxKey()], ids=["before", "after"])
def test_the_start_warns_of_users_whose_id_is_no_objectid(
    mongo_uri: str, separate: Database[Document], strange: Any
) -> None:
    users = [{"_id": one, "canonical_name": str(one), "generation": 0} for one in (strange, ObjectId(), ObjectId())]
    separate.users.insert_many(users)
    with started(f"{mongo_uri}_damaged", "--single-process") as (process, port):
        process.wait_for(f"http://127.0.0.1:{port}/health/ready")
        assert process.output.count("users whose _id is not an ObjectId cannot log in") == 1
        assert "a-name" not in process.output


@pytest.mark.parametrize("field", USER_FIELDS)
def test_the_service_starts_with_a_damaged_user(
    alice: Actor, separate: Database[Document], database: Database[Document], field: str
) -> None:
    """Only documents of the predecessor, which lack all that this service has added, prevent the start."""
    document = database.users.find_one({"_id": ObjectId(alice.claims["sub"])})
    assert document
    for value in USER_FIELDS[field]:
        separate.users.delete_many({})
        damaged = {**document, field: value} if value is not MISSING else {**document}
        if value is MISSING:
            del damaged[field]
        separate.users.insert_one(damaged)
        assert startup_error(separate) is None
        assert startup_warning(separate) is None


# Sessions

SESSION_FIELDS: dict[str, list[Any]] = {
    "user_id": [MISSING, 7, None],
    "access": [MISSING, 7, "user", None, [1]],
    "generation": [MISSING, "0", None, -1],
    "counter": [MISSING, "0", [0], Decimal128("0"), None, -1],
    "rotations": [MISSING, 7, None, {"0": 1}, [7]],
    "address": [MISSING, 7, None],
    "user_agent": [MISSING, 7, None],
    "created_at": [MISSING, 7, None, FAR, "now"],
    "refreshed_at": [MISSING, 7, None, FAR],
    "expires_at": [MISSING, 7, None, FAR, Timestamp(2**32 - 1, 1), Regex("x")],
}


@pytest.mark.parametrize("field", SESSION_FIELDS)
def test_a_damaged_session_counts_as_ended_and_takes_no_other_away(
    service: Service, alice: Actor, database: Database[Document], caplog: pytest.LogCaptureFixture, field: str
) -> None:
    """It is not listed and cannot be refreshed, but it can be logged out of, on every worker."""
    document = database.sessions.find_one({"_id": alice.claims["sid"]})
    assert document
    original = Session(alice.claims["sid"], alice.claims["sub"], Access.USER, 0, document["expires_at"], None, ("pwd",))
    logins = service.app.ctx.logins
    for value in SESSION_FIELDS[field]:
        session_id = secrets.token_urlsafe(16)
        damaged = Actor(service, alice.username, logins.issue(replace(original, id=session_id)).model_dump())
        database.sessions.insert_one({**document, "_id": session_id})
        set_field(database, "sessions", session_id, field, value)
        listed = alice.get("/auth/sessions")
        assert [session["id"] for session in listed.json()["sessions"]] == [alice.claims["sid"]], value
        for _ in range(2):
            rejected = damaged.refresh()
            # A refresh writes these fields anew.
            allowed = (200, 401) if field in ("expires_at", "refreshed_at") else (401,)
            assert rejected.status_code in allowed, value
        assert len([line for line in caplog.messages if f" {session_id} " in line and "counts as ended" in line]) <= 1
        assert damaged.post("/auth/logout").status_code == 204
        ended = {"_id": session_id, "ended": {"$type": "timestamp"}}
        assert database.sessions.count_documents(ended) == 1, "other workers find it in the feed"
    assert "counts as ended because of" in caplog.text
    assert alice.refresh().status_code == 200


def test_logging_out_everywhere_ends_sessions_of_a_damaged_generation(
    alice: Actor, database: Database[Document]
) -> None:
    damaged = [alice.log_in() for _ in range(3)]
    for session, value in zip(damaged, (MISSING, "9", None), strict=True):
        set_field(database, "sessions", session.claims["sid"], "generation", value)
    assert alice.post("/auth/logout-all").status_code == 204
    assert [session.secret_status for session in damaged] == [401] * 3


FEED_CASES: dict[str, Document] = {
    "in the future": {"ended": Timestamp(2**32 - 1, 1)},
    "a list": {"ended": [Timestamp(1, 1), Timestamp(2**32 - 1, 1)]},
    "a number": {"ended": 7},
    "a time": {"ended": datetime.now(UTC)},
    "unfinished": {"ending": True},
    "an id of another type": {"_id": {"a": 1}, "ended": Timestamp(1, 1), "ending": True},
    "another id": {"_id": ObjectId(), "ended": Timestamp(2, 2), "ending": True},
}


@pytest.mark.parametrize("document", FEED_CASES.values(), ids=FEED_CASES)
def test_the_feed_follows_later_ends_whatever_a_damaged_session_has(
    service: Service, alice: Actor, database: Database[Document], document: Document
) -> None:
    """A worker that believed an end in the future would skip all others until then."""
    other = {"_id": str(ObjectId()), **document}
    database.sessions.insert_one(other)
    ctx = service.app.ctx
    try:
        for _ in range(3):
            service.run(ctx.revocations.catch_up())
            ctx.revocations.proven_at = -math.inf  # the next look is proven, and settles the place of the last ones
            ctx.revocations._overlap = 0
        database.sessions.update_one({"_id": alice.claims["sid"]}, {"$currentDate": {"ended": {"$type": "timestamp"}}})
        service.run(ctx.revocations.catch_up())
        assert alice.secret_status == 401
        service.run(ctx._finish_interrupted())
    finally:
        database.sessions.delete_one({"_id": other["_id"]})
        ctx.revocations._overlap = service.config.MONGO_TIMEOUT_SECONDS


def test_a_damaged_generation_is_finished_once(service: Service, bob: Actor, database: Database[Document]) -> None:
    """Or the mark would stay, and each look for interrupted logouts would end the sessions again."""
    key = {"_id": ObjectId(bob.claims["sub"])}
    database.users.update_one(key, {"$set": {"ending": True, "generation": "one"}})
    service.run(service.app.ctx.generations.finish_interrupted())
    assert bob.secret_status == 401
    stored = database.users.find_one(key)
    assert stored
    assert "ending" not in stored
    assert isinstance(stored["generation"], int)
    assert bob.log_in().secret_status == 200


# Attempts and locks


@pytest.fixture
def damage_counter(alice: Actor, database: Database[Document]) -> Callable[[Document], None]:
    """Return a function that replaces alice's counter of failed logins."""

    def damage_counter(damaged: Document) -> None:
        before = set(database.attempts.distinct("_id"))
        wrong = {"username": alice.username, "password": "not the password"}
        assert alice.service("POST", "/auth", json=wrong).status_code == 401
        (pair,) = [key for key in set(database.attempts.distinct("_id")) - before if "pair" in key]
        database.attempts.replace_one({"_id": pair}, damaged)

    return damage_counter


@pytest.mark.parametrize(
    "damaged",
    [
        {"count": "many", "ends": datetime(2100, 1, 1, tzinfo=UTC)},
        {"count": 1_000_000, "ends": "later"},
        {"count": 1_000_000},
        {"count": [1], "ends": [datetime(2100, 1, 1, tzinfo=UTC)]},
        {"count": math.inf, "ends": FAR},
        {"count": -1_000_000, "ends": FAR},
        {"count": None, "ends": None},
    ],
    ids=str,
)
def test_a_damaged_counter_starts_again(
    alice: Actor,
    damage_counter: Callable[[Document], None],
    log_in: Callable[[str], httpx.Response],
    damaged: Document,
) -> None:
    """Otherwise it would fail every login."""
    damage_counter(damaged)
    assert log_in(alice.username).status_code == 200


def test_a_counter_locks_no_longer_than_its_window(
    alice: Actor, damage_counter: Callable[[Document], None], log_in: Callable[[str], httpx.Response]
) -> None:
    """Its attempts still count: the setting may have been another one."""
    damage_counter({"count": 1_000_000, "ends": FAR})
    locked = log_in(alice.username)
    assert locked.status_code == 429
    assert int(locked.headers["retry-after"]) <= 15 * 60


def test_a_damaged_lock_is_written_over(
    service: Service, appoint: Callable[[], Actor], database: Database[Document]
) -> None:
    admin = appoint()
    database.locks.replace_one({"_id": "administrators"}, {"touched": "many"}, upsert=True)
    user = f"/users/{admin.claims['sub']}"
    response = service("PATCH", user, token=admin.tokens["access_token"], json={"access": "user"})
    assert (response.status_code, response.json()["code"]) == (409, "last_admin")


@pytest.mark.parametrize("collection", ["users", "sessions"])
def test_the_field_that_transactions_write_to_may_have_any_value(
    service: Service, admin: Actor, bob: Actor, database: Database[Document], collection: str
) -> None:
    owner = ObjectId(admin.claims["sub"]) if collection == "users" else admin.claims["sid"]
    set_field(database, collection, owner, "touched", "many")
    user = f"/users/{bob.claims['sub']}"
    response = service("PATCH", user, token=admin.tokens["access_token"], json={"access": "guest"})
    assert response.status_code == 200
