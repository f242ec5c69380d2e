"""Transactions: all or nothing, repeated on conflicts, never left open for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pymongo.errors import NetworkTimeout

from app.database import transactions
from app.database.client import Database
from app.database.collection import Collection
from app.database.time_limit import TimeLimit
from tests.conftest import Service

SECONDS = 5


@asynccontextmanager
async def opened(uri: str) -> AsyncIterator[tuple[Database, Collection]]:
    """Open a database of the test's own, with a collection."""
    database = Database(f"{uri}_transactions", default_name="x", timeout_seconds=SECONDS)
    try:
        yield database, database.collection("things")
    finally:
        await database._client.drop_database(database._database)
        await database.close()


def test_nothing_is_written_if_work_raises(service: Service, mongo_uri: str) -> None:
    async def story() -> None:
        async with opened(mongo_uri) as (database, things):

            async def work() -> None:
                await things.insert({"_id": 1})
                assert await things.find_one({"_id": 1}), "a transaction sees its own writes"
                raise KeyError

            with pytest.raises(KeyError):
                await database.transactions.run(work)
            assert await things.find_one({"_id": 1}) is None

    service.run(story())


def test_a_transaction_that_conflicts_is_repeated(service: Service, mongo_uri: str) -> None:
    """Neither of two increments is lost, although both read before they write."""

    async def story() -> None:
        async with opened(mongo_uri) as (database, things):
            await things.insert({"_id": 1, "n": 0})
            read = asyncio.Barrier(2)
            runs = 0

            async def increment() -> None:
                nonlocal runs
                runs += 1
                found = await things.find_one({"_id": 1}) or {}
                if runs <= 2:
                    await read.wait()
                await things.update_one({"_id": 1}, {"$set": {"n": found["n"] + 1}})

            await asyncio.gather(database.transactions.run(increment), database.transactions.run(increment))
            assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 2}
            assert runs > 2

    service.run(story())


def test_calls_outside_do_not_join_the_transaction_of_another_request(service: Service, mongo_uri: str) -> None:
    async def story() -> None:
        async with opened(mongo_uri) as (database, things):
            inserted, looked = asyncio.Event(), asyncio.Event()

            async def work() -> None:
                await things.insert({"_id": 1})
                inserted.set()
                await looked.wait()

            task = asyncio.create_task(database.transactions.run(work))
            await inserted.wait()
            assert await things.find_one({"_id": 1}) is None
            looked.set()
            await task
            assert await things.find_one({"_id": 1})

    service.run(story())


def test_a_transaction_that_was_given_up_blocks_others_only_for_a_moment(
    service: Service, mongo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself would abort it after a minute."""
    monkeypatch.setattr(transactions, "MARGIN_SECONDS", 0.1)

    async def story() -> None:
        async with opened(mongo_uri) as (database, things):
            limit = database.transactions._limit = TimeLimit(0.5, lambda: None)
            await things.insert({"_id": 1, "n": 0})

            async def work() -> None:
                await things.update_one({"_id": 1}, {"$inc": {"n": 1}})
                await limit.apply(asyncio.sleep(60))

            with pytest.raises(NetworkTimeout):
                await database.transactions.run(work)
            await things.update_one({"_id": 1}, {"$inc": {"n": 10}})  # waits until the lock is free
            assert await things.find_one({"_id": 1}) == {"_id": 1, "n": 10}

    service.run(story())
