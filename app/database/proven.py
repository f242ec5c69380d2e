"""Reads of what the majority has committed, and proofs that they are recent."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pymongo
from bson.codec_options import CodecOptions
from pymongo.errors import NetworkTimeout
from pymongo.read_concern import ReadConcern

from app.database.collection import Document, Filter


class ProvenReader:
    """Reads one collection on a connection, a thread and a time limit of its own, whatever clients ask meanwhile.

    Each page comes in one response. Nothing in it can be rolled back, but only a proven one is known to be recent: a
    primary that was isolated or replaced, also one whose machine was paused, answers the others for some time.
    """

    def __init__(self, uri: str, *, default_name: str, collection: str, seconds: float) -> None:
        milliseconds = int(seconds * 1000)
        self._seconds = seconds
        self._executor = ThreadPoolExecutor(1, "feed")
        self._client = pymongo.MongoClient[Document](
            uri,
            timeoutMS=milliseconds,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            waitQueueTimeoutMS=milliseconds,
            readPreference="primary",
            maxPoolSize=2,
            connect=False,
            appname=f"{default_name} feed",
        )
        options: CodecOptions[Document] = CodecOptions(tz_aware=True)
        found = self._client.get_default_database(default_name).get_collection(collection, codec_options=options)
        self._committed = found.with_options(read_concern=ReadConcern("majority"))
        self._proven = found.with_options(read_concern=ReadConcern("linearizable"))

    async def find(
        self, query: Filter, projection: Mapping[str, Any], *, sort: str, limit: int, proven: bool
    ) -> list[Document]:
        """Return at most `limit` committed matches in the order of `sort`. Raises pymongo's errors.

        A proven result has all that was acknowledged before the call. It is linearizable: after reading, the primary
        commits a write with the majority before it responds, which an isolated or replaced one cannot. MongoDB promises
        linearizability for a single document only, because others may change during the read; here, a document does
        not change any more once it matches.
        """
        collection = self._proven if proven else self._committed

        def read() -> list[Document]:
            # A negative limit asks for one response, without a cursor for more.
            return list(collection.find(query, projection).sort(sort).limit(-limit).batch_size(limit))

        future = asyncio.wrap_future(self._executor.submit(read))
        try:
            async with asyncio.timeout(self._seconds):
                return await future
        except TimeoutError:
            raise NetworkTimeout(f"no answer from the database within {self._seconds} s") from None

    async def close(self) -> None:
        """Close the connection once the thread is free."""
        self._executor.submit(self._client.close)
        self._executor.shutdown(wait=False)
