"""The conditional update of a refresh through Motor and nothing else, as fast as one process can.

Run as `python -m bench.bare_update FILE SECONDS CONCURRENCY` on APP_MONGO_URI; the file has a session's id in each
line. Prints the updates and the seconds as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReturnDocument

from app.models.sessions import SessionOver, Sessions

DAY_SECONDS = 24 * 3600


class Recorder:
    """Stands where the collection is, and keeps what it is asked to do."""

    query: dict[str, Any]
    update: list[dict[str, Any]]

    async def find_one_and_update(self, query: dict[str, Any], update: list[dict[str, Any]]) -> None:
        """Keep the call."""
        self.query, self.update = query, update

    async def find_one(self, *_: object) -> None:
        """Find nothing."""


async def shape() -> Recorder:
    """Return what the service asks the database for a refresh, so that here the same is asked."""
    recorder = Recorder()
    sessions = Sessions(
        recorder,  # type: ignore[arg-type]  # as much of a collection as is called
        idle_seconds=14 * DAY_SECONDS,
        absolute_seconds=30 * DAY_SECONDS,
        grace_seconds=10,
    )
    with suppress(SessionOver):
        await sessions.rotate("", 0)
    return recorder


async def measure(ids: list[str], seconds: float, concurrency: int) -> tuple[int, float]:
    """Update the sessions in turn, so many at a time; return how many updates were made, and the seconds."""
    asked = await shape()
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
        os.environ["APP_MONGO_URI"], w="majority", tz_aware=True
    )
    collection = client.get_default_database()["sessions"]
    due = deque((id_, 0) for id_ in ids)
    updates = 0
    began = time.perf_counter()

    async def update_again_and_again() -> None:
        nonlocal updates
        while time.perf_counter() - began < seconds:
            id_, counter = due.popleft()
            query = {**asked.query, "_id": id_, "counter": counter}
            moved = await collection.find_one_and_update(query, asked.update, return_document=ReturnDocument.AFTER)
            due.append((id_, moved["counter"]))
            updates += 1

    await asyncio.gather(*(update_again_and_again() for _ in range(concurrency)))
    return updates, time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    file, seconds, concurrency = sys.argv[1:]
    ids = Path(file).read_text().split()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        updates, took = runner.run(measure(ids, float(seconds), int(concurrency)))
    print(json.dumps({"updates": updates, "seconds": took}))


if __name__ == "__main__":
    main()
