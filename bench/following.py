"""Measure what following the ended sessions costs the database, by how often a look is proven.

Run `python -m bench.following [--followers 2,50,200,500,1000] [--seconds 12]`: a replica set of three local members,
`ENDINGS` ended sessions per second, and so many followers in processes of their own, each with this service's own
Revocations. Prints for each choice and number the commands per second at the primary, the CPU of each member, and the
growth of the oplog. The experiment `followers` of scripts/bench measures the service's own choice.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from app.database.collection import Document, Filter
from app.models.sessions import END, FEED_PAGE, INDEXES
from app.security.revocations import PROOFS, Revocations
from bench import processes
from bench.machine import BenchFailed
from tools.local_mongo import ReplicaSet, local_mongo
from tools.mongod import Mongod
from tools.processes import die_with_parent

ENDINGS = 5  # sessions that end each second
SESSIONS = 2000
POLL_SECONDS, STALE_SECONDS, OVERLAP_SECONDS = 1, 10, 3
WARM_UP_SECONDS = 6
PER_PROCESS = 250  # followers
CONNECTIONS = 50  # shared by all followers of a process; real ones have one each
# The read concerns of looks, and of those that Revocations wants to be proven.
OF_SERVICE = f"majority, {PROOFS} in {STALE_SECONDS} s proven"
CHOICES = {
    "local, never proven": ("local", "local"),
    "majority, never proven": ("majority", "majority"),
    OF_SERVICE: ("majority", "linearizable"),
    "linearizable, each proven": ("linearizable", "linearizable"),
}


@dataclass(frozen=True)
class Counters:
    """The state of the set at one moment: commands at the primary, CPU seconds per member, bytes of the oplog."""

    at: float
    commands: int
    cpu_seconds: list[float]
    oplog_bytes: int


@dataclass(frozen=True)
class Cost:
    """What a number of followers cost, and how many of their looks failed."""

    commands_per_second: float  # at the primary
    cpu_percent: list[float]  # of a core: the primary, then the secondaries
    oplog_bytes_per_second: float
    failures: int


class Feed:
    """The feed of all followers, as Sessions reads it through ProvenReader."""

    def __init__(self, uri: str, levels: tuple[str, str]) -> None:
        self._client = MongoClient[Document](uri, maxPoolSize=CONNECTIONS, readPreference="primary", timeoutMS=4000)
        found = self._client.get_default_database().get_collection("sessions", CodecOptions(tz_aware=True))
        self._collections = [found.with_options(read_concern=ReadConcern(level)) for level in levels]
        self._threads = ThreadPoolExecutor(CONNECTIONS)

    async def ended_since(self, since: Any, *, proven: bool) -> list[tuple[Any, str]]:
        """Return a page, as Sessions does."""
        query: Filter = {"ended": {"$gte": since}}
        projection: Mapping[str, Any] = {"ended": 1}

        def read() -> list[Document]:
            found = self._collections[proven].find(query, projection)
            return list(found.sort("ended").limit(-FEED_PAGE).batch_size(FEED_PAGE))

        found = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        return [(document["ended"], document["_id"]) for document in found]


async def follow(feed: Any, failures: "Synchronized[int]") -> None:
    """Follow as one worker does."""
    follower = Revocations(feed, stale_seconds=STALE_SECONDS, lifetime_seconds=900, overlap_seconds=OVERLAP_SECONDS)
    await asyncio.sleep(random.uniform(0, POLL_SECONDS))  # noqa: S311  # spreads the load, hides nothing
    while True:
        try:
            await follower.catch_up()
        except PyMongoError:
            with failures.get_lock():
                failures.value += 1
        await asyncio.sleep(POLL_SECONDS)


async def follow_all(uri: str, choice: str, followers: int, failures: "Synchronized[int]") -> None:
    """Follow as so many workers do."""
    feed = Feed(uri, CHOICES[choice])
    await asyncio.gather(*(follow(feed, failures) for _ in range(followers)))


def follow_in_process(parent: int, uri: str, choice: str, followers: int, failures: "Synchronized[int]") -> None:
    """Follow until the process or its parent is ended."""
    die_with_parent(parent)
    asyncio.run(follow_all(uri, choice, followers, failures))


@contextmanager
def following(uri: str, choice: str, followers: int) -> Iterator["Synchronized[int]"]:
    """Let so many followers work, and yield the number of their looks that have failed. Raises BenchFailed."""
    context = multiprocessing.get_context("spawn")
    failures = context.Value("i", 0)
    shares = [min(PER_PROCESS, followers - begun) for begun in range(0, followers, PER_PROCESS)]
    arguments = [(os.getpid(), uri, choice, share, failures) for share in shares]
    started = [context.Process(target=follow_in_process, args=given, daemon=True) for given in arguments]
    for process in started:
        process.start()
    try:
        yield failures
        if not all(process.is_alive() for process in started):
            raise BenchFailed("a process of the followers has ended")
    finally:
        for process in started:
            process.kill()
            process.join()


async def end_sessions(client: MongoClient[Document], ids: list[str], seconds: float) -> None:
    """End one session after the other, for so many seconds."""
    sessions = client.get_default_database().sessions
    for _ in range(int(seconds * ENDINGS)):
        await asyncio.to_thread(sessions.update_one, {"_id": ids.pop()}, END)
        await asyncio.sleep(1 / ENDINGS)


def cpu_seconds(member: Mongod) -> float:
    """Return the CPU time of a member, which is the leader of a session of its own."""
    return processes.cpu_seconds(member.process.pid) if member.process else 0.0


def counters(client: MongoClient[Document], members: list[Mongod]) -> Counters:
    """Read the counters."""
    status = client.admin.command("serverStatus")
    oplog = client.local.command("collStats", "oplog.rs")
    at = asyncio.get_running_loop().time()
    return Counters(at, status["network"]["numRequests"], [cpu_seconds(one) for one in members], oplog["size"])


async def measure(mongo: ReplicaSet, choice: str, followers: int, seconds: float) -> Cost:
    """Let followers work and return what they cost."""
    primary = mongo.primary()
    members = [primary, *(one for one in mongo.members if one is not primary)]
    with MongoClient[Document](mongo.uri, w="majority") as client:
        ids = [secrets.token_urlsafe(16) for _ in range(SESSIONS)]
        collection = client.get_default_database().sessions
        collection.drop()
        collection.create_indexes(INDEXES)
        collection.insert_many({"_id": one, "user_id": "u"} for one in ids)
        with following(mongo.uri, choice, followers) as failures:
            await end_sessions(client, ids, WARM_UP_SECONDS)
            before = counters(client, members)
            await end_sessions(client, ids, seconds)
            after = counters(client, members)
            return cost(before, after, failures.value)


def cost(before: Counters, after: Counters, failures: int) -> Cost:
    """Return what the time between two readings cost."""
    seconds = after.at - before.at
    cpu = [100 * (y - x) / seconds for x, y in zip(before.cpu_seconds, after.cpu_seconds, strict=True)]
    commands, oplog = after.commands - before.commands, after.oplog_bytes - before.oplog_bytes
    return Cost(commands / seconds, cpu, oplog / seconds, failures)


def row(choice: str, followers: int, cost: Cost) -> str:
    """Return a row of the table."""
    cpu = " / ".join(f"{one:.1f}" for one in cost.cpu_percent)
    return (
        f"| {choice} | {followers} | {cost.commands_per_second:.0f} | {cpu} "
        f"| {cost.oplog_bytes_per_second / 1000:.1f} | {cost.failures} |"
    )


@contextmanager
def replica_set() -> Iterator[ReplicaSet]:
    """Run a replica set of three members."""
    with local_mongo(replicas=3) as mongo:
        if not isinstance(mongo, ReplicaSet):
            raise TypeError
        yield mongo


def main() -> None:
    """Measure every choice with every number of followers, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--followers", default="2,50,200,500,1000")
    parser.add_argument("--seconds", type=float, default=12)
    options = parser.parse_args()
    print("| Looks | Followers | Commands/s at the primary | CPU % primary / secondaries | Oplog KB/s | Failed looks |")
    print("|---|---|---|---|---|---|")
    with replica_set() as mongo:
        for followers in map(int, options.followers.split(",")):
            for choice in CHOICES:
                measured = asyncio.run(measure(mongo, choice, followers, options.seconds))
                print(row(choice, followers, measured), flush=True)


if __name__ == "__main__":
    main()
