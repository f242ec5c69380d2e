"""Transactions: reads and writes of one moment, committed together by the majority or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from pymongo import ReadPreference, WriteConcern
from pymongo.errors import NetworkTimeout, PyMongoError
from pymongo.read_concern import ReadConcern

from app.database.time_limit import TimeLimit

RETRY_SECONDS = 0.01
MARGIN_SECONDS = 1.0
TRANSIENT, UNKNOWN = "TransientTransactionError", "UnknownTransactionCommitResult"  # labels of MongoDB's errors

_session: ContextVar[Any | None] = ContextVar("session", default=None)

T = TypeVar("T")


def current_session() -> Any | None:
    """Return the session of the running transaction, if any.

    Collections pass it to every call.
    """
    return _session.get()


class Transactions:
    """Runs work in transactions.

    A transaction sees one snapshot, so a condition that it only reads may change before it commits (write skew). Work
    must therefore write to every document that its right rests on: then one of two conflicting transactions is retried.
    `prepare` creates what a transaction cannot, before it begins.
    """

    def __init__(self, client: Any, limit: TimeLimit, prepare: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._limit = limit
        self._prepare = prepare
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run work and commit it.

        Both are repeated when they conflict with other writes, within the request's time budget.

        Work may run several times, so it must do nothing but read and write the database. If it raises, nothing is
        written. Raises what work raises, and pymongo's errors.
        """
        await self._prepare()
        session = await self._limit.apply(self._client.start_session())
        try:
            result = await self._until_committed(session, work)
        except (NetworkTimeout, asyncio.CancelledError):
            self._end_later(session)
            raise
        except BaseException:
            await _end(session)
            raise
        await _end(session)
        return result

    def close(self) -> None:
        """Leave transactions that were given up to the server, which aborts them after a while."""
        for task in self._ending:
            task.cancel()

    async def _until_committed(self, session: Any, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await self._attempt(session, work)
            except PyMongoError as error:
                if not error.has_error_label(TRANSIENT) or isinstance(error, NetworkTimeout):
                    raise
            if session.in_transaction:
                await self._limit.apply(session.abort_transaction())
            await self._limit.apply(asyncio.sleep(RETRY_SECONDS))

    async def _attempt(self, session: Any, work: Callable[[], Awaitable[T]]) -> T:
        session.start_transaction(ReadConcern("snapshot"), WriteConcern("majority"), ReadPreference.PRIMARY)
        token = _session.set(session)
        try:
            result = await work()
        finally:
            _session.reset(token)
        await self._commit(session)
        return result

    async def _commit(self, session: Any) -> None:
        while True:
            try:
                return await self._limit.apply(session.commit_transaction())
            except PyMongoError as error:
                if not error.has_error_label(UNKNOWN) or isinstance(error, NetworkTimeout):
                    raise
            await self._limit.apply(asyncio.sleep(RETRY_SECONDS))

    def _end_later(self, session: Any) -> None:
        """Abort when no call can be in progress any more.

        A driver's thread may still work on a call that was given up. If the transaction was aborted before that call is
        sent, the driver would send it outside of any transaction.
        """

        async def end() -> None:
            await asyncio.sleep(self._limit.seconds + MARGIN_SECONDS)
            await _end(session)

        task = asyncio.ensure_future(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _end(session: Any) -> None:
    """End a session, which aborts a transaction that was not committed."""
    with suppress(PyMongoError, TimeoutError):
        async with asyncio.timeout(MARGIN_SECONDS):
            await session.end_session()
