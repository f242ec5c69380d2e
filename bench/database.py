"""Fill a database with many users and sessions in the document format of the models."""

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from bson import ObjectId, Timestamp
from pymongo import IndexModel, MongoClient
from pymongo.collection import Collection

from app.models import sessions, users
from app.models.users import Access, User
from app.security.passwords import CONTEXT

BATCH = 10_000
PASSWORD = secrets.token_urlsafe(16)  # of every user
ADMIN = "root-of-all"


def fill_users(uri: str, number: int) -> list[str]:
    """Insert an administrator and `number` users, and return their ids in ascending order.

    All of them have a real hash of PASSWORD.
    """
    password_hash = CONTEXT.hash(PASSWORD)
    people = [User.new(ADMIN, password_hash, Access.ADMIN)]
    people += [User.new(username(n), password_hash) for n in range(number)]
    with _client(uri) as client:
        _insert(client, "users", users.INDEXES, map(User.to_document, people))
    return [person.id for person in people]


def username(number: int) -> str:
    """Return the name of a user that fill_users inserts."""
    return f"user{number}"


def fill_ended_sessions(uri: str, number: int, within_seconds: int) -> list[str]:
    """Insert `number` sessions that ended in the last `within_seconds`, and return their ids."""
    ids = [secrets.token_urlsafe(16) for _ in range(number)]
    now = time.time()
    with _client(uri) as client:
        documents = (
            _session(id_, ended=now - within_seconds + n / number * within_seconds, increment=n % 1000 + 1)
            for n, id_ in enumerate(ids)
        )
        _insert(client, "sessions", sessions.INDEXES, documents)
    return ids


def fill_sessions(uri: str, number: int) -> list[str]:
    """Insert `number` active sessions without a refresh, and return their ids."""
    ids = [secrets.token_urlsafe(16) for _ in range(number)]
    with _client(uri) as client:
        _insert(client, "sessions", sessions.INDEXES, map(_session, ids))
    return ids


def _client(uri: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(uri, tz_aware=True)


def _insert(
    client: MongoClient[dict[str, Any]], name: str, indexes: list[IndexModel], documents: Iterator[dict[str, Any]]
) -> None:
    collection: Collection[dict[str, Any]] = client.get_default_database()[name]
    collection.create_indexes(indexes)
    while batch := list(islice(documents, BATCH)):
        collection.insert_many(batch, ordered=False)


def _session(id_: str, *, ended: float | None = None, increment: int = 0) -> dict[str, Any]:
    now = datetime.now(UTC)
    document = {
        "_id": id_,
        "user_id": str(ObjectId()),
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
