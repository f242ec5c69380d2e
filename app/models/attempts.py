"""Counted attempts, in windows that start with the first attempt and end as a whole."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from limits.aio.storage import MemoryStorage
from pymongo import IndexModel

from app.database.collection import Collection

INDEXES = [IndexModel("ends", expireAfterSeconds=0)]


@dataclass(frozen=True, slots=True)
class Window:
    """A counter after an attempt was added.

    `failed` are those of the attempts that are known to have failed; the others are in progress. `left` is the number
    of seconds until the window ends, by the clock of the store.
    """

    key: str
    attempts: int
    failed: int
    ends: datetime
    left: float


class Attempts(Protocol):
    """What the throttle needs of a store.

    The MongoDB storage of the limits package returns the count without its window, so that an attempt that is taken
    back after the window's end would make room in the next one.
    """

    async def count(self, key: str, seconds: int) -> Window:
        """Count one more attempt."""

    async def fail(self, window: Window) -> None:
        """Count an attempt of this window as failed."""

    async def take_back(self, window: Window) -> None:
        """Count one attempt less, if the window is still current."""

    async def reset(self, key: str) -> None:
        """Remove the counter."""


class MongoAttempts:
    """Counts in MongoDB, by its clock, for all workers and machines."""

    def __init__(self, attempts: Collection) -> None:
        self._attempts = attempts

    async def count(self, key: str, seconds: int) -> Window:
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
                        "failed": {"$cond": [over, 0, {"$max": [{"$ifNull": ["$failed", 0]}, 0]}]},
                        "ends": {"$cond": [over, longest, {"$min": ["$ends", longest]}]},
                        "counted_at": "$$NOW",
                    }
                }
            ],
            upsert=True,
        )
        found = document or {}  # an upsert always has a result
        left = (found["ends"] - found["counted_at"]).total_seconds()
        return Window(key, found["count"], found["failed"], found["ends"], left)

    async def fail(self, window: Window) -> None:
        """Count an attempt of this window as failed."""
        await self._attempts.update_one({"_id": window.key, "ends": window.ends}, {"$inc": {"failed": 1}})

    async def take_back(self, window: Window) -> None:
        """Count one attempt less, in this window only.

        The last one removes the counter.
        """
        this = {"_id": window.key, "ends": window.ends}
        if not await self._attempts.delete_one({**this, "count": {"$lte": 1}}):
            await self._attempts.update_one({**this, "count": {"$gt": 1}}, {"$inc": {"count": -1}})

    async def reset(self, key: str) -> None:
        """Remove the counter."""
        await self._attempts.delete_one({"_id": key})


class MemoryAttempts:
    """Counts in the memory of a single worker."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()

    async def count(self, key: str, seconds: int) -> Window:
        """Count one more attempt."""
        number, ends = await self._storage.incr(key, seconds), await self._ends(key)
        return Window(key, number, await self._storage.get(_failed(key)), ends, _left(ends))

    async def fail(self, window: Window) -> None:
        """Count an attempt of this window as failed."""
        if await self._ends(window.key) == window.ends:
            await self._storage.incr(_failed(window.key), max(1, math.ceil(_left(window.ends))))

    async def take_back(self, window: Window) -> None:
        """Count one attempt less, in this window only."""
        if await self._ends(window.key) == window.ends:
            await self._storage.decr(window.key)

    async def reset(self, key: str) -> None:
        """Remove the counter."""
        await self._storage.clear(key)
        await self._storage.clear(_failed(key))

    async def _ends(self, key: str) -> datetime:
        # In milliseconds, as MongoDB has times: an attempt may be settled after its window was stored.
        return datetime.fromtimestamp(round(await self._storage.get_expiry(key), 3), UTC)


def _failed(key: str) -> str:
    return f"failed {key}"


def _left(ends: datetime) -> float:
    return (ends - datetime.now(UTC)).total_seconds()
