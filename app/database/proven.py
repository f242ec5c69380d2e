"""Reads of what the majority has committed, and proofs that they are recent."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pymongo
from bson import Timestamp
from pymongo.errors import ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from app.database.collection import DECODING, Document, Filter
from app.database.failures import NoAnswer
from app.database.members import Members

UNKNOWN_TIME = Timestamp(2**32 - 1, 2**32 - 1)  # later than all others


class ProvenReader:
    """Reads one collection, whatever clients ask meanwhile.

    It has a connection, a thread and a time limit of its own.

    Each page comes in one response. Nothing in it can be rolled back, but only a proven one is known to be recent: a
    primary that was isolated or replaced, also one whose machine was paused, answers the others for some time.
    """

    def __init__(self, uri: str, *, default_name: str, collection: str, seconds: float) -> None:
        milliseconds = int(seconds * 1000)
        self._seconds = seconds
        self._executor = ThreadPoolExecutor(1, "feed")
        self._members = Members(uri)
        self._client = pymongo.MongoClient[Document](
            uri,
            event_listeners=[self._members],
            timeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            waitQueueTimeoutMS=milliseconds,
            readPreference="primary",
            maxPoolSize=2,
            connect=False,
            appname=f"{default_name} feed",
        )
        self._members.replica_set = self._client.options.replica_set_name
        found = self._client.get_default_database(default_name).get_collection(collection, codec_options=DECODING)
        self._committed = found.with_options(read_concern=ReadConcern("majority"))
        self._proven = found.with_options(read_concern=ReadConcern("linearizable"))

    async def find(
        self, query: Filter, projection: Mapping[str, Any], *, sort: str, limit: int, proven: bool
    ) -> tuple[list[Document], Timestamp]:
        """Return at most `limit` committed matches in the order of `sort`, and the server's logical time then.

        Raises pymongo's errors.

        A proven result has all that was acknowledged before the call. It is linearizable: after reading, the primary
        commits a write with the majority before it responds, which an isolated or replaced one cannot. MongoDB promises
        linearizability for a single document only, because others may change during the read; here, a document does
        not change any more once it matches.
        """
        collection = self._proven if proven else self._committed

        def read() -> tuple[list[Document], Timestamp]:
            with self._client.start_session(causal_consistency=False) as session:
                # A negative limit asks for one response, without a cursor for more.
                cursor = collection.find(query, projection, session=session).sort(sort).limit(-limit).batch_size(limit)
                found = list(cursor)
                # A member of a new replica set does not tell it until it has keys that sign times.
                return found, session.operation_time or UNKNOWN_TIME

        future = asyncio.wrap_future(self._executor.submit(read))
        try:
            async with asyncio.timeout(self._seconds):
                return await future
        except (TimeoutError, ServerSelectionTimeoutError):
            raise NoAnswer(self._members.trouble() or f"no answer from the database within {self._seconds} s") from None

    async def close(self) -> None:
        """Close the connection once the thread is free."""
        self._executor.submit(self._client.close)
        self._executor.shutdown(wait=False)
