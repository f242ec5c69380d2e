"""Whatever a document has in any field, no route answers 5xx, and no background task ends.

PROPERTY_EXAMPLES=1000 tries more values.
"""

import math
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Binary, Code, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given, note
from hypothesis import strategies as st
from pymongo.database import Database

from app.models.factors import FIELDS as FACTOR_FIELDS
from app.models.sessions import FIELDS as SESSION_FIELDS
from app.models.sessions import Session
from app.models.users import FIELDS, OPTIONAL, Access, User
from config import Config
from tests.conftest import PASSWORD, Actor, Document, Service
from tests.properties import repeatable
from tests.routes import ROUTES, example_path

MISSING = object()
INT64 = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(
    st.sampled_from(
        [MISSING, None, MinKey(), MaxKey(), math.nan, math.inf, Decimal128("NaN"), Timestamp(2**32 - 1, 1)]
    ),
    st.booleans(),
    INT64,
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.binary(max_size=20).map(Binary),
    st.builds(DatetimeMS, INT64),
    st.datetimes().map(lambda time: time.replace(tzinfo=UTC)),
    st.builds(ObjectId),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda number: Decimal128(str(number)[:30])),
    st.just(Regex("^a", "i")),
    st.just(Code("1")),
    st.just(DBRef("users", 1)),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS.filter(lambda value: value is not MISSING), max_size=3),
    st.dictionaries(st.text("abc$", max_size=3), SCALARS.filter(lambda value: value is not MISSING), max_size=2),
)
DAMAGED_USER_FIELDS = [*FIELDS, *OPTIONAL, "ending", "touched", "other"]
DAMAGED_SESSION_FIELDS = [
    *(name for name in SESSION_FIELDS if name != "_id"),
    "ended",
    "ended_at",
    "ending",
    "touched",
    "other",
]
DAMAGED_FACTOR_FIELDS = [*FACTOR_FIELDS, "other"]
DAMAGE = st.one_of(
    st.tuples(st.just("users"), st.sampled_from(DAMAGED_USER_FIELDS), VALUES),
    st.tuples(st.just("sessions"), st.sampled_from(DAMAGED_SESSION_FIELDS), VALUES),
    st.tuples(st.just("factors"), st.sampled_from(DAMAGED_FACTOR_FIELDS), VALUES),
)
BODIES: dict[str, Document] = {
    "/users/registration": {"username": "alice", "password": PASSWORD},
    "/auth": {"password": PASSWORD},
    "/users/me/password": {"current_password": "not the password", "new_password": "another long passphrase"},
    "/users/me/delete": {"current_password": "not the password"},
    "/users/{user_id}": {"access": "user", "disabled": False},
    "/users/me/totp/confirmation": {"code": "123456"},
    "/auth/step-up": {"code": "abcd-efgh-ijkl-mnop"},
    "/auth/passkey": {"challenge": "A" * 43, "passkey": {}},
    "/users/me/passkeys": {"passkey": {}, "name": "My phone"},
}


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    """Run a service without throttling, and with the time limits of a busy machine."""
    limits = ("LOGIN_FAILURES_PER_PAIR", "LOGIN_FAILURES_PER_ACCOUNT", "REGISTRATIONS_PER_ADDRESS")
    others = {
        "MONGO_TIMEOUT_SECONDS": 60,
        "REVOCATION_STALE_SECONDS": 120,
        "ENCRYPTION_KEY": secrets.token_urlsafe(48),
        "PUBLIC_URL": "https://demo.example",
    }
    with Service(config.model_copy(update=dict.fromkeys(limits, "1000000/minute") | others)) as service:
        yield service


class Victim(Actor):
    """A user with an active session, both written directly, one of them with a damaged field."""

    def __init__(self, service: Service, database: Database[Document]) -> None:
        self.user = User.new(f"victim-{ObjectId()}", service.app.ctx.passwords._dummy_hash)
        now = datetime.now(UTC)
        session = Session(
            secrets.token_urlsafe(16), self.user.id, Access.USER, 0, now + timedelta(days=1), now, ("pwd",)
        )
        super().__init__(service, self.user.username, service.app.ctx.logins.issue(session).model_dump())
        self.documents: dict[str, Document] = {
            "users": self.user.to_document(),
            "sessions": {
                "_id": session.id,
                "user_id": self.user.id,
                "access": Access.USER,
                "generation": 0,
                "counter": 0,
                "rotations": [],
                "address": "127.0.0.1",
                "user_agent": "test",
                **dict.fromkeys(("created_at", "refreshed_at"), now),
                "expires_at": session.expires_at,
            },
            "factors": {
                "_id": self.user.id,
                "totp": {"id": ObjectId(), "secret": {}, "step": 0, "added_at": now},
                "pending": {"id": ObjectId(), "secret": {}, "tries": 5, "expires_at": now + timedelta(days=1)},
                "recovery_codes": [{"prefix": "abcd", "hash": service.app.ctx.passwords._dummy_hash}],
            },
        }
        self._database = database

    def insert(self) -> None:
        """Write the documents."""
        for collection, document in self.documents.items():
            self._database[collection].insert_one(document)

    def remove(self) -> None:
        """Remove the documents."""
        for collection, document in self.documents.items():
            self._database[collection].delete_one({"_id": document["_id"]})


def test_any_value_in_any_field_fails_no_request(service: Service, admin: Actor, database: Database[Document]) -> None:
    """Requests of its owner, of an administrator, and of others; and the tasks that follow the database."""
    ctx = service.app.ctx

    @given(DAMAGE)
    @repeatable(25)
    def check(damage: tuple[str, str, Any]) -> None:
        collection, field, value = damage
        note(f"{collection}.{field} = {value!r}")
        assert admin.refresh().status_code == 200, "many examples take longer than an access token is valid"
        victim = Victim(service, database)
        if value is MISSING:
            victim.documents[collection].pop(field, None)
        else:
            victim.documents[collection][field] = value
        victim.insert()
        try:
            for method, path in sorted(ROUTES, key=lambda route: route[0] == "delete"):
                send(victim, admin, method, path)
            service.run(ctx.revocations.catch_up())
            service.run(ctx._finish_interrupted())
            assert admin.get("/users").status_code == 200
        finally:
            victim.remove()

    check()


def send(victim: Victim, admin: Actor, method: str, path: str) -> None:
    """Send a request as the victim, and as an administrator about the victim."""
    ids = {"user_id": victim.user.id, "session_id": victim.documents["sessions"]["_id"]}
    url = path.format(**ids) if set(ids) & set(path.replace("}", "{").split("{")) else example_path(method, path)
    body: Document | None = BODIES.get(path)
    if path == "/auth":
        body = {**BODIES[path], "username": victim.username}
    if path == "/auth/refresh":
        body = {"refresh_token": victim.tokens["refresh_token"]}
    for actor in (victim, admin):
        if actor is admin and path in ("/auth/logout", "/auth/logout-all"):
            continue
        options: Document = {} if method == "get" else {"json": body}
        response = victim.service(method.upper(), url, token=actor.tokens["access_token"], **options)
        assert response.status_code < 500, f"{method} {path}: {response.text}"


@pytest.mark.parametrize("collection", ["users", "sessions"])
def test_any_id_fails_no_request(service: Service, admin: Actor, database: Database[Document], collection: str) -> None:
    """Ids are ordered by their types, and the pages of users by their ids."""
    ctx = service.app.ctx

    @given(VALUES.filter(lambda value: value is not MISSING and not isinstance(value, list | Regex)))
    @repeatable(15)
    def check(strange: Any) -> None:
        note(repr(strange))
        assert admin.refresh().status_code == 200
        victim = Victim(service, database)
        document = {**victim.documents[collection], "_id": strange, "ending": True, "ended": Timestamp(1, 1)}
        if isinstance(strange, dict) and any(name.startswith("$") for name in strange):
            return  # MongoDB rejects such an id
        database[collection].insert_one(document)
        try:
            body = {"username": victim.username, "password": PASSWORD}
            assert service("POST", "/auth", json=body).status_code == 401
            assert admin.get("/users?limit=1").status_code == 200
            assert admin.get("/auth/sessions").status_code == 200
            service.run(ctx.revocations.catch_up())
            service.run(ctx._finish_interrupted())
        finally:
            database[collection].delete_one({"_id": {"$eq": strange}})

    check()
