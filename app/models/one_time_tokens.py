"""One-time tokens and codes: stored as digests, bound to a purpose, a user, a generation and a subject, used once.

All times are the database's own ($$NOW).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import IndexModel

from app.database.collection import Collection, Document
from app.models.pipelines import later, literals
from app.models.users import User

ALIVE = 3  # tokens of one user and purpose
TRIES = 5  # for a code, and with a token that needs a second factor
UNEXPIRED = {"$expr": {"$gt": ["$expires_at", "$$NOW"]}}

INDEXES = [
    IndexModel([("user_id", 1), ("purpose", 1)]),
    IndexModel("expires_at", expireAfterSeconds=0),
]


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A token or code as stored.

    `subject` is what it is about, such as the key of an address.
    """

    id: str
    user_id: str
    generation: int
    subject: str
    created_at: datetime
    mac: str = ""
    facts: Document | None = None


class OneTimeTokens:
    """The collection of tokens and codes."""

    def __init__(self, collection: Collection) -> None:
        self._tokens = collection

    async def add(
        self,
        digest: str,
        purpose: str,
        user: User,
        subject: str,
        *,
        lifetime: timedelta,
        mail: str,
        facts: Document | None = None,
    ) -> None:
        """Store a token that is about to be sent by a mail of the outbox."""
        given = {
            "facts": facts,
            "purpose": purpose,
            "user_id": user.id,
            "generation": user.generation,
            "subject": subject,
            "mail": mail,
        }
        await self._put(digest, given, lifetime)

    async def add_anonymous(self, digest: str, purpose: str, *, lifetime: timedelta) -> None:
        """Store a token that is bound to nobody."""
        await self._put(digest, {"purpose": purpose, "user_id": "", "generation": 0, "subject": ""}, lifetime)

    async def add_code(self, purpose: str, user: User, subject: str, mac: str, *, lifetime: timedelta) -> None:
        """Store a code; it replaces the one before."""
        given = {
            "purpose": purpose,
            "user_id": user.id,
            "generation": user.generation,
            "subject": subject,
            "mac": mac,
            "tries": TRIES,
        }
        await self._put(_code_id(purpose, user.id), given, lifetime)

    async def alive(self, purpose: str, user_id: str, *, besides: str) -> int:
        """Return for how many mails, besides one, a user has usable tokens."""
        query = {"user_id": user_id, "purpose": purpose, "mail": {"$ne": besides}, **UNEXPIRED}
        found = await self._tokens.find(query, {"mail": 1}, limit=100)
        return len({document["mail"] for document in found})

    async def find(self, digest: str, purpose: str) -> OneTimeToken | None:
        """Return a token that has not expired."""
        document = await self._tokens.find_one({"_id": digest, "purpose": purpose, **UNEXPIRED})
        return _read(document) if document else None

    async def consume(self, token: OneTimeToken) -> bool:
        """Use a token up, and return whether it was still there.

        Of any number of uses one succeeds.
        """
        this = {"_id": token.id, "user_id": token.user_id, "generation": token.generation}
        return await self._tokens.delete_one({**this, "mac": token.mac or None, **UNEXPIRED})

    async def take(self, digest: str, purpose: str, *, user_id: str = "", subject: str = "") -> OneTimeToken | None:
        """Use a token up, and return it.

        Whatever comes of it; None if the user and subject have no such one.
        """
        query = {"_id": digest, "purpose": purpose, "user_id": user_id, "subject": subject, **UNEXPIRED}
        document = await self._tokens.find_one_and_delete(query)
        return _read(document) if document else None

    async def try_token(self, digest: str, purpose: str) -> OneTimeToken | None:
        """Take one of the tries of a token off.

        Returns the token, or None if it is used up, expired or unknown.
        """
        query = {"_id": digest, "purpose": purpose, "tried": {"$not": {"$gte": TRIES}}, **UNEXPIRED}
        document = await self._tokens.find_one_and_update(query, {"$inc": {"tried": 1}})
        return _read(document) if document else None

    async def try_code(self, purpose: str, user: User) -> OneTimeToken | None:
        """Take one of the tries off, and return the code's record.

        Returns None if it is used up, expired or of no use.
        """
        document = await self._tokens.find_one_and_update(
            {"_id": _code_id(purpose, user.id), "generation": user.generation, "tries": {"$gt": 0}, **UNEXPIRED},
            {"$inc": {"tries": -1}},
        )
        return _read(document) if document else None

    async def void(self, user_id: str, purposes: Sequence[str]) -> None:
        """Remove all tokens and codes of a user for these purposes."""
        await self._tokens.delete_many({"user_id": user_id, "purpose": {"$in": list(purposes)}})

    async def void_later(self, purpose: str, than: OneTimeToken) -> None:
        """Remove the tokens of a user for a purpose that were made after another one."""
        query = {"user_id": than.user_id, "purpose": purpose, "created_at": {"$gt": than.created_at}}
        await self._tokens.delete_many(query)

    async def remove_user(self, user_id: str) -> None:
        """Remove all tokens and codes of a user."""
        await self._tokens.delete_many({"user_id": user_id})

    async def _put(self, id_: str, given: Document, lifetime: timedelta) -> None:
        fields = literals(given) | {"created_at": "$$NOW", "expires_at": later(lifetime)}
        await self._tokens.find_one_and_update({"_id": id_}, [{"$set": fields}], upsert=True)


def _code_id(purpose: str, user_id: str) -> str:
    return f"{purpose} {user_id}"


def _read(document: Document) -> OneTimeToken:
    fields: dict[str, Any] = {name: document[name] for name in ("user_id", "generation", "subject", "created_at")}
    return OneTimeToken(document["_id"], **fields, mac=document.get("mac", ""), facts=document.get("facts"))
