"""A MongoDB collection with a time limit on every call."""

from collections.abc import Mapping, Sequence
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.read_concern import ReadConcern
from sanic.log import error_logger, logger

from app.database import indexes
from app.database.failures import CannotPrepare, NoAnswer
from app.database.reports import Reports
from app.database.threads import SharedWork
from app.database.time_limit import TimeLimit
from app.database.transactions import current_session

Document = dict[str, Any]
Filter = Mapping[str, Any]
Update = Mapping[str, Any] | Sequence[Mapping[str, Any]]

# Every document can be decoded, whichever program has written it: times out of Python's range and texts that are not
# UTF-8 become other values, which models do not accept. By default, one of them would fail the whole page.
DECODING: CodecOptions[Document] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)


class Collection:
    """The few calls that models need.

    Nothing is inserted before the indexes exist.

    Every method raises pymongo's errors, NetworkTimeout among them.
    """

    def __init__(self, collection: Any, models: Sequence[IndexModel], limit: TimeLimit) -> None:
        self.name: str = collection.name
        self._collection = collection
        self._proven = collection.with_options(read_concern=ReadConcern("linearizable"))
        self._limit = limit
        self._indexes = models
        self._indexed = not models
        self._reports = Reports()
        self._creating = SharedWork(self._create_indexes, f"indexes {self.name}")

    async def prepare(self) -> None:
        """Create the indexes, once for each process.

        Several may do so at once.

        Raises CannotPrepare, also while a large collection is being indexed.
        """
        if self._indexed:
            return
        try:
            await self._limit.apply(self._creating())
        except NoAnswer as error:
            if self._limit.trouble():
                raise
            reason = "the indexes are not complete yet, or the database does not answer"
            raise CannotPrepare(f"{self.name}: {reason}") from error
        self._indexed = True

    def check_indexes_again(self) -> None:
        """Let the next `prepare` look whether the indexes still exist."""
        self._indexed = not self._indexes

    def report(self, name: str, damage: str) -> None:
        """Log that a document cannot be used as it is, once while it is read again and again."""
        line = f"{self.name}: the document {name} cannot be used as it is: {damage}"
        if self._reports.is_new(line):
            error_logger.error("%s", line)

    def _create_indexes(self) -> None:
        # Motor's delegate is the driver's own collection, for the thread.
        indexes.create(self._collection.delegate, self._indexes, self._warn)

    def _warn(self, line: str) -> None:
        if self._reports.is_new(line):
            logger.warning("%s", line)

    async def find_one(self, query: Filter, projection: Mapping[str, Any] | None = None) -> Document | None:
        """Return the first match, or None."""
        found: Document | None = await self._limit.apply(
            self._collection.find_one(query, projection, session=current_session())
        )
        return found

    async def find_one_proven(self, query: Filter, projection: Mapping[str, Any] | None = None) -> Document | None:
        """Return the one match as of now (linearizable).

        From an isolated primary there is no answer.

        The query must name one document by its id.
        """
        found: Document | None = await self._limit.apply(self._proven.find_one(query, projection))
        return found

    async def find(
        self,
        query: Filter,
        projection: Mapping[str, Any] | None = None,
        *,
        sort: str = "_id",
        direction: int = ASCENDING,
        skip: int = 0,
        limit: int,
    ) -> list[Document]:
        """Return at most `limit` matches in the order of `sort`, after the first `skip`."""
        cursor = self._collection.find(query, projection, session=current_session())
        cursor = cursor.sort(sort, direction).skip(skip).limit(limit)
        found: list[Document] = await self._limit.apply(cursor.to_list(limit))
        return found

    async def insert(self, document: Document) -> None:
        """Insert a document. Raises DuplicateKeyError."""
        await self.prepare()
        await self._limit.apply(self._collection.insert_one(document, session=current_session()))

    async def update_one(self, query: Filter, update: Update) -> bool:
        """Update the first match and return whether there was one."""
        await self.prepare()
        result = await self._limit.apply(self._collection.update_one(query, update, session=current_session()))
        return bool(result.matched_count)

    async def update_many(self, query: Filter, update: Update) -> None:
        """Update every match, each atomically."""
        await self._limit.apply(self._collection.update_many(query, update, session=current_session()))

    async def find_one_and_update(
        self, query: Filter, update: Update, *, upsert: bool = False, sort: Sequence[tuple[str, int]] | None = None
    ) -> Document | None:
        """Update the first match and return the updated document, or None if there was no match."""
        await self.prepare()
        changed: Document | None = await self._limit.apply(
            self._collection.find_one_and_update(
                query,
                update,
                sort=sort,
                upsert=upsert,
                return_document=ReturnDocument.AFTER,
                session=current_session(),
            )
        )
        return changed

    async def find_one_and_delete(self, query: Filter) -> Document | None:
        """Delete the first match and return it, or None if there was no match."""
        deleted: Document | None = await self._limit.apply(
            self._collection.find_one_and_delete(query, session=current_session())
        )
        return deleted

    async def count(self, query: Filter, *, limit: int) -> int:
        """Return the number of matches, at most `limit`."""
        number: int = await self._limit.apply(
            self._collection.count_documents(query, limit=limit, session=current_session())
        )
        return number

    async def delete_one(self, query: Filter) -> bool:
        """Delete the first match and return whether there was one."""
        result = await self._limit.apply(self._collection.delete_one(query, session=current_session()))
        return bool(result.deleted_count)

    async def delete_many(self, query: Filter) -> None:
        """Delete every match, each atomically."""
        await self._limit.apply(self._collection.delete_many(query, session=current_session()))
