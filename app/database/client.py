"""Open, check and close MongoDB; the only module that imports Motor."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pymongo
import pymongo.database
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from app.database import rights
from app.database.collection import DECODING, Collection
from app.database.failures import (
    AUTHENTICATION_FAILED,
    NOT_AUTHORIZED,
    UNAUTHORIZED,
    NotReplicaSet,
    RightsMissing,
    not_replica_set,
    summary,
)
from app.database.members import Members
from app.database.threads import SharedWork
from app.database.time_limit import TimeLimit
from app.database.transactions import Transactions

CLOSE_SECONDS = 0.5
CHECK_SECONDS = 1.0  # for so long a check that succeeded is not repeated: every client can ask for it
INDEX_CHECK_SECONDS = 60.0  # a restored or dropped collection gets its indexes again within this time
HEALTH = "health"  # the collection that checks write to
PROBE = {"_id": "readiness"}


class Database:
    """A worker's own connection.

    Open it on the event loop that uses it; opening does not connect.

    `default_name` is the database if the URI names none. `request_context` returns the namespace of the current
    request, see TimeLimit.
    """

    def __init__(
        self,
        uri: str,
        *,
        default_name: str,
        timeout_seconds: float,
        request_context: Callable[[], Any | None] = lambda: None,
    ) -> None:
        milliseconds = int(timeout_seconds * 1000)
        members = Members(uri)
        self._client: AsyncIOMotorClient[Mapping[str, Any]] = AsyncIOMotorClient(
            uri,
            event_listeners=[members],
            timeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            waitQueueTimeoutMS=milliseconds,
            w="majority",
            journal=True,
            readPreference="primary",  # a secondary may not know yet which sessions have ended
            readConcernLevel="majority",  # what a request learns cannot be rolled back
            retryWrites=True,
            tz_aware=True,
            appname=default_name,
        )
        members.replica_set = self._client.delegate.options.replica_set_name
        self._database = self._client.get_default_database(default_name)
        self._limit = TimeLimit(timeout_seconds, request_context, members.trouble)
        self.collections: dict[str, Collection] = {}
        self.collection(HEALTH)
        self.transactions = Transactions(self._client, self._limit, self.prepare)
        self._trying = SharedWork(self._try_all, "database check")
        self._tried_at = self._indexes_checked_at = -math.inf

    def collection(self, name: str, indexes: Sequence[IndexModel] = ()) -> Collection:
        """Return a collection with the indexes that it must have before anything is inserted."""
        collection = Collection(self._database.get_collection(name, codec_options=DECODING), indexes, self._limit)
        self.collections[name] = collection
        return collection

    async def prepare(self) -> None:
        """Create the indexes of all collections.

        Raises pymongo's errors, CannotPrepare among them.
        """
        await asyncio.gather(*(collection.prepare() for collection in self.collections.values()))

    async def check(self) -> None:
        """Check all that requests need.

        That is a primary, the indexes, the user's rights, and writes to every collection.

        Raises pymongo's errors.
        """
        await self.ping()
        now = time.monotonic()
        if now - self._indexes_checked_at > INDEX_CHECK_SECONDS:
            for collection in self.collections.values():
                collection.check_indexes_again()
            self._indexes_checked_at = now
        await self.prepare()
        if now - self._tried_at > CHECK_SECONDS:
            await self._limit.apply(self._trying())
            self._tried_at = now

    async def ping(self) -> None:
        """Check that the primary responds. Raises pymongo's errors, NotReplicaSet among them."""
        if reason := not_replica_set(await self._limit.apply(self._client.admin.command("hello"))):
            raise NotReplicaSet(reason)

    async def close(self) -> None:
        """Close every connection.

        The driver ends its sessions at the server, which may be down, so not for long.
        """

        def close() -> None:
            with pymongo.timeout(CLOSE_SECONDS):
                self._client.close()

        self.transactions.close()
        await asyncio.to_thread(close)

    def _try_all(self) -> None:
        """Look at the user's rights, and write. Blocks; a thread of its own does not wait behind clients' requests."""
        database = self._database.delegate
        with pymongo.timeout(self._limit.seconds):
            status = self._client.delegate.admin.command("connectionStatus", showPrivileges=True)
            if lacking := rights.missing(status, database.name, self.collections):
                raise RightsMissing(lacking)
            for name in self.collections:  # changes nothing, but waits for locks
                database[name].find_one_and_update(PROBE | {"at": None}, {"$set": {"at": None}})
            database[HEALTH].update_one(PROBE, {"$currentDate": {"at": True}}, upsert=True)


Look = Callable[[pymongo.database.Database[Any]], str | None]


def inspect(
    uri: str, *, default_name: str, timeout_seconds: float, refuse: Look, warn: Look
) -> tuple[str | None, str | None]:
    """Return why the service can never serve from this database, and what an operator should know.

    Both are None if the database is unavailable for now: the workers wait for it, and log the reason.

    `refuse` and `warn` look at its content, and return a reason or None.
    """
    milliseconds = int(timeout_seconds * 1000)
    try:
        with pymongo.MongoClient[Any](uri, timeoutMS=milliseconds, serverSelectionTimeoutMS=milliseconds) as client:
            database = client.get_default_database(default_name)
            try:
                reason = not_replica_set(client.admin.command("hello")) or refuse(database)
                return (reason, None) if reason else (None, warn(database))
            except OperationFailure as error:
                return _refusal(error, client, default_name), None
    except PyMongoError:
        return None, None  # unavailable


def _refusal(error: OperationFailure, client: pymongo.MongoClient[Any], default_name: str) -> str | None:
    """Return why the database will never serve this user, or None."""
    if error.code == AUTHENTICATION_FAILED:
        return "the database rejects this user name and password"
    if error.code != UNAUTHORIZED:
        return None
    with suppress(ConfigurationError):  # the URI names no database
        client.get_default_database()
        return summary(error)
    if NOT_AUTHORIZED.search(str(error)):
        return f"the user may not use the database {default_name}, which is taken because the URI names none"
    return summary(error)
