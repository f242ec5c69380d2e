"""Signing keys: for each algorithm one document with the key that signs, the next one, and the previous ones.

A change is one conditional update of this document, so that of any number of workers one makes it. All times are the
database's own ($$NOW). Private keys are encrypted.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError

from app.database.collection import Collection, Document
from app.database.failures import OwnError
from app.models.pipelines import later, literals, milliseconds

RINGS = 10  # there are as many as algorithms


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as stored: its public JWK and its encrypted private half."""

    kid: str
    jwk: dict[str, str]
    secret: Document
    created_at: datetime | None = None
    until: datetime | None = None  # of a previous key


@dataclass(frozen=True, slots=True)
class Ring:
    """The keys of one algorithm. `version` is another one after each change."""

    algorithm: str
    version: int
    current: str
    next: str
    keys: dict[str, StoredKey]
    turned_at: datetime
    now: datetime
    dropping: tuple[str, ...] = ()  # keys that are not in the feed yet


class Keys:
    """The collection of rings."""

    def __init__(self, collection: Collection) -> None:
        self._rings = collection

    async def all(self) -> list[Ring]:
        """Return all rings."""
        names = ("version", "current", "next", "keys", "turned_at", "dropping")
        projection = dict.fromkeys(names, 1) | {"now": "$$NOW"}
        return [_read(document) for document in await self._rings.find({}, projection, limit=RINGS)]

    async def create(self, algorithm: str, current: StoredKey, next_: StoredKey) -> bool:
        """Make a ring with its first two keys, and return whether there was none."""
        fields: Document = {
            **literals({"version": 1, "current": current.kid, "next": next_.kid}),
            "keys": [_literal(current), _literal(next_)],
            "turned_at": "$$NOW",
        }
        none = {"_id": algorithm, "version": {"$exists": False}}
        try:
            await self._rings.find_one_and_update(none, [{"$set": fields}], upsert=True)
        except DuplicateKeyError:  # another worker was faster
            return False
        return True

    async def turn(self, ring: Ring, new: StoredKey, *, lead: timedelta, lifetime: timedelta) -> bool:
        """Let the next key sign, and publish another next one.

        The key that signed verifies for `lifetime`. Does nothing, and returns False, if the ring was changed meanwhile
        or the next key was published less than `lead` ago.
        """
        ends = later(lifetime)
        with_end = {"$mergeObjects": ["$$this", {"until": ends}]}
        retired = {"$cond": [{"$eq": ["$$this.kid", "$current"]}, with_end, "$$this"]}
        kept = {"$or": [{"$eq": [{"$type": "$$this.until"}, "missing"]}, {"$gt": ["$$this.until", "$$NOW"]}]}
        alive = {"$filter": {"input": "$keys", "cond": kept}}
        keys = {"$concatArrays": [{"$map": {"input": alive, "in": retired}}, [_literal(new)]]}
        return await self._change(ring, keys, "$next", new.kid, lead=lead)

    async def drop(self, ring: Ring, kid: str, new: StoredKey | None, *, lead: timedelta) -> bool:
        """Remove a key at once, and remember that it is to be told.

        `new` is the next key if the dropped one was the current or the next one. Returns False as `turn` does.
        """
        rest = {"$filter": {"input": "$keys", "cond": {"$ne": ["$$this.kid", {"$literal": kid}]}}}
        keys = {"$concatArrays": [rest, [_literal(new)] if new else []]}
        current = "$next" if kid == ring.current else "$current"
        return await self._change(
            ring,
            keys,
            current,
            new.kid if new else ring.next,
            lead=lead if kid == ring.current else timedelta(0),
            dropping=[*ring.dropping, kid],
        )

    async def finish_drop(self, algorithm: str, kid: str) -> None:
        """Forget a drop that was told."""
        await self._rings.update_one({"_id": algorithm}, {"$pull": {"dropping": kid}})

    async def rewrap(self, algorithm: str, kid: str, before: str, secret: Document) -> bool:
        """Replace a ciphertext that was made with another encryption key.

        Returns False if it was replaced meanwhile.
        """
        query = {"_id": algorithm, "keys": {"$elemMatch": {"kid": kid, "secret.key": before}}}
        return await self._rings.update_one(query, {"$set": {"keys.$.secret": secret}, "$inc": {"version": 1}})

    async def _change(
        self,
        ring: Ring,
        keys: Document,
        current: str,
        next_: str,
        *,
        lead: timedelta,
        dropping: Sequence[str] | None = None,
    ) -> bool:
        published = {"$arrayElemAt": [{"$filter": {"input": "$keys", "cond": {"$eq": ["$$this.kid", "$next"]}}}, 0]}
        age = {"$subtract": ["$$NOW", {"$getField": {"field": "created_at", "input": published}}]}
        query = {"_id": ring.algorithm, "version": ring.version, "$expr": {"$gte": [age, milliseconds(lead)]}}
        fields: Document = {"keys": keys, "current": current, "next": {"$literal": next_}, "version": ring.version + 1}
        if dropping is not None:
            fields["dropping"] = {"$literal": list(dropping)}
        if current == "$next":
            fields["turned_at"] = "$$NOW"
        return await self._rings.update_one(query, [{"$set": fields}])


def startup_error(database: Any, known: Container[str]) -> str | None:
    """Return why the service cannot read the stored keys, or None.

    `known` has the names of its encryption keys.

    Raises pymongo's errors.
    """
    unknown = [name for name in database["keys"].distinct("keys.secret.key") if name not in known]
    if not unknown:
        return None
    names = ", ".join(sorted(map(str, unknown)))
    return f"it has signing keys that were encrypted with another ENCRYPTION_KEY ({names}): is it in no setting?"


def _literal(key: StoredKey) -> Document:
    return literals({"kid": key.kid, "jwk": key.jwk, "secret": key.secret}) | {"created_at": "$$NOW"}


def _read(document: Document) -> Ring:
    try:
        stored = [StoredKey(**one) for one in document["keys"]]
        fields: dict[str, Any] = {name: document[name] for name in ("version", "current", "next", "turned_at", "now")}
        fields["dropping"] = tuple(document.get("dropping", ()))
        return Ring(algorithm=document["_id"], keys={key.kid: key for key in stored}, **fields)
    except (KeyError, TypeError) as error:
        raise OwnError(f"keys: the document {document['_id']} is damaged: {error}") from None
