"""Open, prepare, ping and close MongoDB; the only module that imports Motor."""

import asyncio
from collections.abc import Mapping
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient

from app.models import sessions, users
from app.models.collection import Collection

DEFAULT_NAME = "sanic_api_demo"


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
            retryWrites=True,
            tz_aware=True,
            appname="sanic-api-demo",
        )
        self._database = self._client.get_default_database(DEFAULT_NAME)

    def users(self) -> Collection:
        """Return the collection of users."""
        return self._collection("users", users.INDEXES)

    def sessions(self) -> Collection:
        """Return the collection of sessions."""
        return self._collection("sessions", sessions.INDEXES)

    def locks(self) -> Collection:
        """Return the collection of locks."""
        return self._collection("locks", [])

    @property
    def name(self) -> str:
        """The database's name."""
        return str(self._database.name)

    async def ping(self) -> None:
        """Ask the primary for a sign of life. Raises pymongo's errors."""
        await self._client.admin.command("ping")

    async def close(self) -> None:
        """Close every connection; in a thread, since the driver says good-bye to a server that may be gone."""
        await asyncio.to_thread(self._client.close)

    def _collection(self, name: str, indexes: Any) -> Collection:
        options: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
        return Collection(self._database.get_collection(name, codec_options=options), indexes, self._seconds)
