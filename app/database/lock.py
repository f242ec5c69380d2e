"""A lock that all workers and machines share, for the few changes that must be serialized."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from pymongo.errors import DuplicateKeyError, NetworkTimeout

from app.database.collection import Collection
from app.database.time_limit import TimeLimit

RETRY_SECONDS = 0.02


class Lock:
    """A lock that expires by the database's clock.

    A holder that dies does not block others for long.
    """

    def __init__(self, locks: Collection, name: str, limit: TimeLimit) -> None:
        self._locks = locks
        self._name = name
        self._limit = limit

    @asynccontextmanager
    async def held(self) -> AsyncIterator[datetime]:
        """Wait for the lock, and yield the time at which it expires.

        Every write under the lock must have the condition that $$NOW is earlier: a holder that was paused and resumes
        too late then changes nothing. Raises NetworkTimeout if others hold the lock for too long.
        """
        deadline = await self._acquire()
        try:
            yield deadline
        finally:
            await self._locks.delete_one({"_id": self._name, "until": deadline})

    async def _acquire(self) -> datetime:
        clock = asyncio.get_running_loop().time
        give_up = clock() + self._limit.seconds
        while clock() < give_up:
            if deadline := await self._try():
                return deadline
            await self._limit.apply(asyncio.sleep(RETRY_SECONDS))  # waiting uses the request's time budget
        raise NetworkTimeout(f"{self._name}: the lock was not free within {self._limit.seconds} s")

    async def _try(self) -> datetime | None:
        take = [{"$set": {"until": {"$add": ["$$NOW", int(self._limit.seconds * 1000)]}}}]
        try:
            taken = await self._locks.find_one_and_update({"_id": self._name, "until": None}, take, upsert=True)
        except DuplicateKeyError:
            expired = {"_id": self._name, "$expr": {"$lt": ["$until", "$$NOW"]}}
            taken = await self._locks.find_one_and_update(expired, take)
        return taken["until"] if taken else None
