"""Open, ping and close MongoDB; the only module that imports Motor."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pymongo
import pymongo.database
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel
from pymongo.errors import OperationFailure, PyMongoError

from app.database.collection import Collection
from app.database.failures import NotReplicaSet, not_replica_set
from app.database.time_limit import TimeLimit
from app.database.transactions import Transactions

CLOSE_SECONDS = 0.5
WRONG_CREDENTIALS = {13, 18}  # the server's error codes Unauthorized and AuthenticationFailed


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
        self._client: AsyncIOMotorClient[Mapping[str, Any]] = AsyncIOMotorClient(
            uri,
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
        self._database = self._client.get_default_database(default_name)
        self._limit = TimeLimit(timeout_seconds, request_context)
        self.collections: dict[str, Collection] = {}
        self.transactions = Transactions(self._client, self._limit, self.prepare)

    def collection(self, name: str, indexes: Sequence[IndexModel] = ()) -> Collection:
        """Return a collection with the indexes that it must have before anything is inserted."""
        options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
        collection = Collection(self._database.get_collection(name, codec_options=options), indexes, self._limit)
        self.collections[name] = collection
        return collection

    async def prepare(self) -> None:
        """Create the indexes of all collections.

        Raises pymongo's errors, IndexesMissing among them.
        """
        await asyncio.gather(*(collection.prepare() for collection in self.collections.values()))

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


def startup_error(
    uri: str,
    *,
    default_name: str,
    timeout_seconds: float,
    inspect: Callable[[pymongo.database.Database[Any]], str | None],
) -> str | None:
    """Return why the service can never serve from this database.

    None if it can, or if the database is unavailable for now.

    `inspect` looks at its content and returns a reason or None.
    """
    milliseconds = int(timeout_seconds * 1000)
    try:
        with pymongo.MongoClient[Any](uri, timeoutMS=milliseconds, serverSelectionTimeoutMS=milliseconds) as client:
            return not_replica_set(client.admin.command("hello")) or inspect(client.get_default_database(default_name))
    except OperationFailure as error:
        if error.code in WRONG_CREDENTIALS:
            return "the database rejects this user name and password"
    except PyMongoError:
        pass  # unavailable
    return None
