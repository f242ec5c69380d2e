"""A lock that all workers and machines share, for the few changes that must be made one at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from pymongo.errors import DuplicateKeyError, NetworkTimeout

from app.database.collection import Collection, in_time

RETRY_SECONDS = 0.02


class Lock:
    """Held until its deadline at most, by the database's clock, so a holder that dies blocks nobody for long."""

    def __init__(self, locks: Collection, name: str, *, seconds: float) -> None:
        self._locks = locks
        self._name = name
        self._seconds = seconds

    @asynccontextmanager
    async def held(self) -> AsyncIterator[datetime]:
        """Wait for the lock, and give the deadline by which every write under it must have happened.

        A write makes sure of that by a condition on $$NOW: a holder that was stopped and goes on too late
        changes nothing. Raises NetworkTimeout if others hold the lock for too long.
        """
        deadline = await self._acquire()
        try:
            yield deadline
        finally:
            await self._locks.delete_one({"_id": self._name, "until": deadline})

    async def _acquire(self) -> datetime:
        give_up = time.monotonic() + self._seconds
        while time.monotonic() < give_up:
            if deadline := await self._try():
                return deadline
            await in_time(asyncio.sleep(RETRY_SECONDS), self._seconds)  # it is the request's time, too
        raise NetworkTimeout(f"{self._name}: the lock was not free within {self._seconds} s")

    async def _try(self) -> datetime | None:
        take = [{"$set": {"until": {"$add": ["$$NOW", int(self._seconds * 1000)]}}}]
        try:
            taken = await self._locks.find_one_and_update({"_id": self._name, "until": None}, take, upsert=True)
        except DuplicateKeyError:
            expired = {"_id": self._name, "$expr": {"$lt": ["$until", "$$NOW"]}}
            taken = await self._locks.find_one_and_update(expired, take)
        return taken["until"] if taken else None
