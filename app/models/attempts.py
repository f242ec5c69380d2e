"""Counted attempts, in windows that start with the first attempt and end as a whole."""

from datetime import UTC, datetime
from typing import Any, Protocol

from limits.aio.storage import MemoryStorage
from pymongo import IndexModel

from app.database.collection import Collection

INDEXES = [IndexModel("ends", expireAfterSeconds=0)]


class Attempts(Protocol):
    """What the throttle needs of a store.

    The MongoDB storage of the limits package returns the count without its window, so that an attempt that is taken
    back after the window's end would make room in the next one.
    """

    async def count(self, key: str, seconds: int) -> tuple[int, datetime]:
        """Count one more attempt and return the count and the end of the window."""

    async def take_back(self, key: str, ends: datetime) -> None:
        """Count one attempt less, if the window is still current."""

    async def reset(self, key: str) -> None:
        """Remove the counter."""


class MongoAttempts:
    """Counts in MongoDB, by its clock, for all workers and machines."""

    def __init__(self, attempts: Collection) -> None:
        self._attempts = attempts

    async def count(self, key: str, seconds: int) -> tuple[int, datetime]:
        """Count one more attempt in a single update."""
        longest = {"$add": ["$$NOW", seconds * 1000]}
        over: dict[str, Any] = {
            "$or": [
                # A new counter, or a value that this service does not write.
                {"$not": {"$in": [{"$type": "$count"}, ["int", "long"]]}},
                {"$lt": ["$count", 0]},
                {"$ne": [{"$type": "$ends"}, "date"]},
                {"$lte": ["$ends", "$$NOW"]},
            ]
        }
        document = await self._attempts.find_one_and_update(
            {"_id": key},
            [
                {
                    "$set": {
                        "count": {"$cond": [over, 1, {"$add": ["$count", 1]}]},
                        "ends": {"$cond": [over, longest, {"$min": ["$ends", longest]}]},
                    }
                }
            ],
            upsert=True,
        )
        found = document or {}  # an upsert always has a result
        return found["count"], found["ends"]

    async def take_back(self, key: str, ends: datetime) -> None:
        """Count one attempt less, in this window only and never below zero."""
        await self._attempts.update_one({"_id": key, "ends": ends, "count": {"$gt": 0}}, {"$inc": {"count": -1}})

    async def reset(self, key: str) -> None:
        """Remove the counter."""
        await self._attempts.delete_one({"_id": key})


class MemoryAttempts:
    """Counts in the memory of a single worker."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()

    async def count(self, key: str, seconds: int) -> tuple[int, datetime]:
        """Count one more attempt."""
        number = await self._storage.incr(key, seconds)
        return number, await self._ends(key)

    async def take_back(self, key: str, ends: datetime) -> None:
        """Count one attempt less, in this window only."""
        if await self._ends(key) == ends:
            await self._storage.decr(key)

    async def reset(self, key: str) -> None:
        """Remove the counter."""
        await self._storage.clear(key)

    async def _ends(self, key: str) -> datetime:
        return datetime.fromtimestamp(await self._storage.get_expiry(key), UTC)
