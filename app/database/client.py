"""Open, ping and close MongoDB, and say whether it can ever serve; the only module that imports Motor."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pymongo
import pymongo.database
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from app.database.collection import Collection, in_time
from app.metrics import mongo_commands

CLOSE_SECONDS = 0.5
DEFAULT_NAME = "sanic_api_demo"
WRONG_CREDENTIALS = {13, 18}  # the server's error codes Unauthorized and AuthenticationFailed


class Outcomes(CommandListener):
    """Counts how commands end."""

    succeeded_ones = mongo_commands.labels("succeeded")
    failed_ones = mongo_commands.labels("failed")

    def started(self, _: CommandStartedEvent) -> None:
        """Count it later."""

    def succeeded(self, _: CommandSucceededEvent) -> None:
        """Count an answer."""
        self.succeeded_ones.inc()

    def failed(self, _: CommandFailedEvent) -> None:
        """Count an error, or that no answer came."""
        self.failed_ones.inc()


class Database:
    """A worker's own connection. Open it on the loop that uses it; opening does not connect."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._seconds = timeout_seconds
        milliseconds = int(timeout_seconds * 1000)
        self._client: AsyncIOMotorClient[Mapping[str, Any]] = AsyncIOMotorClient(
            uri,
            timeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            waitQueueTimeoutMS=milliseconds,
            w="majority",
            readPreference="primary",  # a secondary does not know yet who was logged out
            readConcernLevel="local",
            retryWrites=True,
            tz_aware=True,
            appname="sanic-api-demo",
            event_listeners=[Outcomes()],
        )
        self._database = self._client.get_default_database(DEFAULT_NAME)
        self.collections: dict[str, Collection] = {}

    def collection(self, name: str, indexes: Sequence[IndexModel] = ()) -> Collection:
        """Return a collection, with the indexes that it must have before anything is inserted."""
        options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
        collection = Collection(self._database.get_collection(name, codec_options=options), indexes, self._seconds)
        self.collections[name] = collection
        return collection

    async def ping(self) -> None:
        """Ask the primary for a sign of life. Raises pymongo's errors."""
        await in_time(self._client.admin.command("ping"), self._seconds)

    async def close(self) -> None:
        """Close every connection. The driver takes leave of the server, which may be gone, so not for long."""

        def close() -> None:
            with pymongo.timeout(CLOSE_SECONDS):
                self._client.close()

        await asyncio.to_thread(close)


def objection(
    uri: str, *, timeout_seconds: float, inspect: Callable[[pymongo.database.Database[Any]], str | None]
) -> str | None:
    """Say why this database can never serve, or None: also when it is away, for then it may yet come.

    `inspect` looks at what it holds, and says why that cannot be served.
    """
    milliseconds = int(timeout_seconds * 1000)
    try:
        with pymongo.MongoClient[Any](uri, timeoutMS=milliseconds, serverSelectionTimeoutMS=milliseconds) as client:
            return inspect(client.get_default_database(DEFAULT_NAME))
    except OperationFailure as error:
        if error.code in WRONG_CREDENTIALS:
            return "the database refuses this user name and password"
    except PyMongoError:
        pass  # it is away
    return None
