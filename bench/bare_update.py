"""Measure the conditional update of a refresh through Motor alone, as fast as one process can run it.

Run `python -m bench.bare_update FILE SECONDS CONCURRENCY` with APP_MONGO_URI set. Each line of the file is a session
id. The command prints the number of updates and the seconds as JSON.
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
    """A stand-in for the collection that records the query and the update."""

    query: dict[str, Any]
    update: list[dict[str, Any]]

    async def find_one_and_update(self, query: dict[str, Any], update: list[dict[str, Any]]) -> None:
        """Record the call."""
        self.query, self.update = query, update

    async def find_one_proven(self, *_: object) -> None:
        """Return None, as for a missing document."""


async def record_rotation() -> Recorder:
    """Record the query and the update of the service's refresh, to measure exactly these."""
    recorder = Recorder()
    sessions = Sessions(
        recorder,  # type: ignore[arg-type]  # it has all methods that are called
        recorder,  # type: ignore[arg-type]
        idle_seconds=14 * DAY_SECONDS,
        absolute_seconds=30 * DAY_SECONDS,
        grace_seconds=10,
        per_user=50,
    )
    with suppress(SessionOver):
        await sessions.rotate("", 0)
    return recorder


async def measure(ids: list[str], seconds: float, concurrency: int) -> tuple[int, float]:
    """Update the sessions in turn and return the number of updates and the seconds.

    `concurrency` is the number of updates at the same time.
    """
    recorded = await record_rotation()
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
        os.environ["APP_MONGO_URI"], w="majority", tz_aware=True
    )
    collection = client.get_default_database()["sessions"]
    due = deque((id_, 0) for id_ in ids)
    updates = 0
    began = time.perf_counter()

    async def update_repeatedly() -> None:
        nonlocal updates
        while time.perf_counter() - began < seconds:
            id_, counter = due.popleft()
            query = {**recorded.query, "_id": id_, "counter": counter}
            updated = await collection.find_one_and_update(query, recorded.update, return_document=ReturnDocument.AFTER)
            due.append((id_, updated["counter"]))
            updates += 1

    await asyncio.gather(*(update_repeatedly() for _ in range(concurrency)))
    return updates, time.perf_counter() - began


def main() -> None:
    """Run the measurement and print the result."""
    file, seconds, concurrency = sys.argv[1:]
    ids = Path(file).read_text().split()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        updates, took = runner.run(measure(ids, float(seconds), int(concurrency)))
    print(json.dumps({"updates": updates, "seconds": took}))


if __name__ == "__main__":
    main()
