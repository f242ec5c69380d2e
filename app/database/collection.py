"""A MongoDB collection whose every call ends in time."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import NetworkTimeout, OperationFailure

from app.database.failures import Unprepared

Document = dict[str, Any]
Filter = Mapping[str, Any]
Update = Mapping[str, Any] | Sequence[Mapping[str, Any]]

T = TypeVar("T")


@dataclass
class Patience:
    """How many seconds are left for all calls of one request together; None before the first."""

    seconds: float | None = None


_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


def be_patient_once() -> None:
    """Have everything that this request asks the database share the limit of one call.

    Only the waiting counts, not what happens between the calls. Sanic serves all requests of a connection in
    one task, so each request must begin with this.
    """
    _patience.set(Patience())


async def in_time(call: Awaitable[T], seconds: float) -> T:
    """Wait for the database, but not for ever, and for all of a request's calls together not for longer.

    The driver's own limits begin when a thread takes the call up; while the database hangs, the wait for a
    thread has to be limited too. Raises NetworkTimeout.
    """
    patience = _patience.get() or Patience()
    left = seconds if patience.seconds is None else patience.seconds
    began = time.monotonic()
    try:
        async with asyncio.timeout(left):
            return await call
    except TimeoutError:
        raise NetworkTimeout(f"no answer from the database within {seconds} s") from None
    finally:
        patience.seconds = left - (time.monotonic() - began)


class Collection:
    """The few calls that the models need, each over within `seconds`, and nothing inserted before the indexes exist.

    Every method raises pymongo's errors, NetworkTimeout among them.
    """

    def __init__(self, collection: Any, indexes: Sequence[IndexModel], seconds: float) -> None:
        self._collection = collection
        self._indexes = indexes
        self._seconds = seconds
        self._indexed = False

    async def prepare(self) -> None:
        """Make the indexes unless this process has; several workers may do so at once. Raises Unprepared."""
        if self._indexed or not self._indexes:
            return
        try:
            await self._in_time(self._collection.create_indexes(list(self._indexes)))
        except OperationFailure as error:
            reason = f"{self._collection.name}: the database makes no indexes ({type(error).__name__} {error.code})"
            raise Unprepared(reason) from error
        self._indexed = True

    async def find_one(self, query: Filter, projection: Mapping[str, Any] | None = None) -> Document | None:
        """Return the first match, or None."""
        found: Document | None = await self._in_time(self._collection.find_one(query, projection))
        return found

    async def find(
        self,
        query: Filter,
        projection: Mapping[str, Any] | None = None,
        *,
        sort: str = "_id",
        direction: int = ASCENDING,
        limit: int,
    ) -> list[Document]:
        """Return at most `limit` matches in the order of `sort`."""
        cursor = self._collection.find(query, projection).sort(sort, direction).limit(limit)
        found: list[Document] = await self._in_time(cursor.to_list(limit))
        return found

    async def insert(self, document: Document) -> None:
        """Insert the document. Raises DuplicateKeyError."""
        await self.prepare()
        await self._in_time(self._collection.insert_one(document))

    async def update_one(self, query: Filter, update: Update) -> bool:
        """Update the first match and tell whether there was one."""
        await self.prepare()
        result = await self._in_time(self._collection.update_one(query, update))
        return bool(result.matched_count)

    async def update_many(self, query: Filter, update: Update) -> None:
        """Update every match, each atomically."""
        await self._in_time(self._collection.update_many(query, update))

    async def find_one_and_update(self, query: Filter, update: Update, *, upsert: bool = False) -> Document | None:
        """Update the first match and return it as it is afterwards; None if there was none."""
        await self.prepare()
        changed: Document | None = await self._in_time(
            self._collection.find_one_and_update(query, update, upsert=upsert, return_document=ReturnDocument.AFTER)
        )
        return changed

    async def delete_one(self, query: Filter) -> None:
        """Delete the first match, if any."""
        await self._in_time(self._collection.delete_one(query))

    async def _in_time(self, call: Awaitable[Any]) -> Any:
        return await in_time(call, self._seconds)
