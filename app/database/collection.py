"""A MongoDB collection with a time limit on every call."""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from app.database.failures import IndexesMissing
from app.database.time_limit import TimeLimit
from app.database.transactions import current_session

Document = dict[str, Any]
Filter = Mapping[str, Any]
Update = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Collection:
    """The few calls that models need.

    Nothing is inserted before the indexes exist.

    Every method raises pymongo's errors, NetworkTimeout among them.
    """

    def __init__(self, collection: Any, indexes: Sequence[IndexModel], limit: TimeLimit) -> None:
        self._collection = collection
        self._proven = collection.with_options(read_concern=ReadConcern("linearizable"))
        self._indexes = indexes
        self._limit = limit
        self._indexed = False

    async def prepare(self) -> None:
        """Create the indexes, once for each process; several may do so at once.

        Raises IndexesMissing.
        """
        if self._indexed or not self._indexes:
            return
        try:
            await self._limit.apply(self._collection.create_indexes(list(self._indexes)))
        except OperationFailure as error:
            reason = f"{self._collection.name}: the indexes cannot be created ({type(error).__name__} {error.code})"
            raise IndexesMissing(reason) from error
        self._indexed = True

    async def find_one(self, query: Filter, projection: Mapping[str, Any] | None = None) -> Document | None:
        """Return the first match, or None."""
        found: Document | None = await self._limit.apply(
            self._collection.find_one(query, projection, session=current_session())
        )
        return found

    async def find_one_proven(self, query: Filter, projection: Mapping[str, Any] | None = None) -> Document | None:
        """Return the one match as of now (linearizable): from an isolated primary there is no answer.

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

    async def find_one_and_update(self, query: Filter, update: Update, *, upsert: bool = False) -> Document | None:
        """Update the first match and return the updated document, or None if there was no match."""
        await self.prepare()
        changed: Document | None = await self._limit.apply(
            self._collection.find_one_and_update(
                query, update, upsert=upsert, return_document=ReturnDocument.AFTER, session=current_session()
            )
        )
        return changed

    async def delete_one(self, query: Filter) -> bool:
        """Delete the first match and return whether there was one."""
        result = await self._limit.apply(self._collection.delete_one(query, session=current_session()))
        return bool(result.deleted_count)

    async def delete_many(self, query: Filter) -> None:
        """Delete every match, each atomically."""
        await self._limit.apply(self._collection.delete_many(query, session=current_session()))
