"""Fill a database with many users and sessions in the document format of the models."""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice

from bson import ObjectId, Timestamp
from pymongo import IndexModel, MongoClient

from app.database.collection import Document
from app.models import sessions, users
from app.models.users import Access, User
from app.security.passwords import CONTEXT

BATCH = 10_000
PASSWORD = secrets.token_urlsafe(16)  # of every user
ADMIN = "root-of-all"


def fill_users(uri: str, number: int, fields: Callable[[int], Document] = lambda _: {}) -> list[str]:
    """Insert an administrator and `number` users, and return their ids in ascending order.

    All of them have a real hash of PASSWORD. `fields` returns the other fields of the user with a number.
    """
    password_hash = CONTEXT.hash(PASSWORD)
    admin = User.new(ADMIN, password_hash, Access.ADMIN)
    people = [User.new(username(n), password_hash) for n in range(number)]
    documents = (person.to_document() | fields(n) for n, person in enumerate(people))
    insert(uri, "users", users.INDEXES, chain([admin.to_document()], documents))
    return [admin.id, *(person.id for person in people)]


def username(number: int) -> str:
    """Return the name of a user that fill_users inserts."""
    return f"user{number}"


def fill_ended_sessions(uri: str, number: int, within_seconds: int) -> list[str]:
    """Insert `number` sessions that ended in the last `within_seconds`, and return their ids."""
    ids = [secrets.token_urlsafe(16) for _ in range(number)]
    now = time.time()
    documents = (
        _session(id_, ended=now - within_seconds + n / number * within_seconds, increment=n % 1000 + 1)
        for n, id_ in enumerate(ids)
    )
    insert(uri, "sessions", sessions.INDEXES, documents)
    return ids


def fill_sessions(uri: str, number: int, *, user_id: str | None = None) -> list[str]:
    """Insert `number` active sessions without a refresh, and return their ids.

    They are sessions of one user, or each of a different one.
    """
    ids = [secrets.token_urlsafe(16) for _ in range(number)]
    insert(uri, "sessions", sessions.INDEXES, (_session(id_, user_id) for id_ in ids))
    return ids


def insert(uri: str, name: str, indexes: Sequence[IndexModel], documents: Iterable[Document]) -> None:
    """Insert documents into a collection with these indexes."""
    with MongoClient[Document](uri, tz_aware=True) as client:
        collection = client.get_default_database()[name]
        collection.create_indexes(indexes)
        left = iter(documents)
        while batch := list(islice(left, BATCH)):
            collection.insert_many(batch, ordered=False)


def _session(id_: str, user_id: str | None = None, *, ended: float | None = None, increment: int = 0) -> Document:
    now = datetime.now(UTC)
    document = {
        "_id": id_,
        "user_id": user_id or str(ObjectId()),
        "access": Access.USER,
        "generation": 0,
        "counter": 0,
        "rotations": [],
        "address": "127.0.0.1",
        "user_agent": "bench",
        "created_at": now,
        "refreshed_at": now,
        "expires_at": now + timedelta(days=14),
    }
    if ended:
        document |= {"ended": Timestamp(int(ended), increment), "ended_at": datetime.fromtimestamp(ended, UTC)}
    return document
