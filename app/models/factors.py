"""Second factors: one document for each user who has some, or is about to.

Secrets are encrypted; codes are of use once, by one conditional write each. All times are the database's own ($$NOW).
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import IndexModel

from app.database.collection import Collection, Document
from app.models.fields import Check, damage, is_count, is_list, is_text, is_time
from app.models.pipelines import later, literals

INDEXES = [IndexModel("totp.secret.key")]  # by which a start finds keys that are not configured
TRIES = 5  # to confirm a secret
SECRETS = ("totp", "pending")
PAGE = 500
WITH_SERVER_TIME = {"totp": 1, "pending": 1, "recovery_codes": 1, "now": "$$NOW"}


def _is_totp(value: Any) -> bool:
    return _is_pending(value) and is_count(value.get("step")) and is_time(value.get("added_at"))


def _is_pending(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), ObjectId) and isinstance(value.get("secret"), dict)


def _is_recovery_code(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("prefix")) and is_text(value.get("hash"))


FIELDS: dict[str, Check] = {"totp": _is_totp, "pending": _is_pending, "recovery_codes": is_list(_is_recovery_code)}


@dataclass(frozen=True, slots=True)
class Totp:
    """An authenticator: its encrypted secret, and the step of the last code that was used.

    `id` is another one for each enrolment.
    """

    id: ObjectId
    secret: Document
    step: int
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """An authenticator that its user has not shown yet."""

    id: ObjectId
    secret: Document


@dataclass(frozen=True, slots=True)
class RecoveryCode:
    """What is stored of a recovery code: its first letters and its hash."""

    prefix: str
    hash: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The second factors of a user, and the database's time at which they were read."""

    user_id: str
    totp: Totp | None
    pending: Pending | None
    recovery_codes: tuple[RecoveryCode, ...]
    now: datetime

    @property
    def kinds(self) -> list[str]:
        """The names of what the user can log in with, besides the password."""
        codes = ["recovery_code"] if self.recovery_codes else []
        return ["totp", *codes] if self.totp else []


class Factors:
    """The collection of second factors."""

    def __init__(self, collection: Collection) -> None:
        self._factors = collection

    async def of(self, user_id: str) -> Enrolled:
        """Return the factors of a user.

        A damaged one is of no use, and still required.
        """
        document = await self._factors.find_one({"_id": user_id}, WITH_SERVER_TIME) or {}
        damaged = damage(document, {}, FIELDS)
        if damaged:
            self.report(user_id, f"{', '.join(damaged)} cannot be used")
        right = {name: value for name, value in document.items() if name not in damaged}
        return _read(user_id, right)

    def report(self, user_id: str, reason: str) -> None:
        """Log that the factors of a user cannot be used as they are."""
        self._factors.report(user_id, reason)

    async def begin_totp(self, user_id: str, secret: Document, *, lifetime: timedelta) -> None:
        """Store a secret that is to be confirmed; it replaces one that was not."""
        pending = literals({"id": ObjectId(), "secret": secret, "tries": TRIES}) | {"expires_at": later(lifetime)}
        await self._factors.find_one_and_update({"_id": user_id}, [{"$set": {"pending": pending}}], upsert=True)

    async def try_pending(self, user_id: str) -> Enrolled | None:
        """Take one of the tries off.

        Returns the factors, or None if nothing can be confirmed.
        """
        query = {"_id": user_id, "pending.tries": {"$gt": 0}, "$expr": {"$gt": ["$pending.expires_at", "$$NOW"]}}
        changed = await self._factors.update_one(query, {"$inc": {"pending.tries": -1}})
        return await self.of(user_id) if changed else None

    async def confirm_totp(self, user_id: str, pending: Pending, *, step: int, codes: Sequence[RecoveryCode]) -> bool:
        """Turn a pending secret into an authenticator.

        As part of a transaction. Its first code is used.

        Without codes, the user keeps those that there are. Returns whether it was still pending.
        """
        totp = {"id": "$pending.id", "secret": "$pending.secret", "step": {"$literal": step}, "added_at": "$$NOW"}
        fields: Document = {"totp": totp}
        if codes:
            fields["recovery_codes"] = {"$literal": _stored(codes)}
        query = {"_id": user_id, "pending.id": pending.id, "totp": None}
        return await self._factors.update_one(query, [{"$set": fields}, {"$unset": ["pending"]}])

    async def use_totp(self, user_id: str, totp: Totp, step: int) -> bool:
        """Use the code of a step, and return whether it was of use.

        A step is used once on all machines, and none before it afterwards (RFC 6238 section 5.2).
        """
        query = {"_id": user_id, "totp.id": totp.id, "totp.step": {"$lt": step}}
        return await self._factors.update_one(query, {"$set": {"totp.step": step}})

    async def use_recovery_code(self, user_id: str, code: RecoveryCode) -> bool:
        """Use a recovery code up, and return whether it was still there."""
        query = {"_id": user_id, "recovery_codes.hash": code.hash}
        return await self._factors.update_one(query, {"$pull": {"recovery_codes": {"hash": code.hash}}})

    async def replace_recovery_codes(self, user_id: str, codes: Sequence[RecoveryCode]) -> bool:
        """Replace the recovery codes of a user.

        As part of a transaction.

        Returns whether there is a factor.
        """
        query = {"_id": user_id, "totp": {"$ne": None}}
        return await self._factors.update_one(query, {"$set": {"recovery_codes": _stored(codes)}})

    async def remove_totp(self, user_id: str) -> bool:
        """Remove the authenticator of a user.

        As part of a transaction. Returns whether there was one.

        Recovery codes go with the last factor.
        """
        return await self._factors.delete_one({"_id": user_id, "totp": {"$ne": None}})

    async def remove_user(self, user_id: str) -> None:
        """Remove all factors of a user."""
        await self._factors.delete_one({"_id": user_id})

    async def under_other_keys(self, current: str, *, after: str | None) -> list[tuple[str, str, ObjectId, Document]]:
        """Return a page of secrets that were not encrypted with the current key.

        Each has its user, its field and the id of its enrolment.
        """
        others = [{f"{field}.secret.key": {"$exists": True, "$ne": current}} for field in SECRETS]
        query = {"$or": others} | ({"_id": {"$gt": after}} if after else {})
        return [
            (document["_id"], field, document[field]["id"], document[field]["secret"])
            for document in await self._factors.find(query, limit=PAGE)
            for field in SECRETS
            if field in document and FIELDS[field](document[field]) and document[field]["secret"].get("key") != current
        ]

    async def rewrap(self, user_id: str, field: str, enrolment: ObjectId, secret: Document) -> bool:
        """Replace the ciphertext of a secret, unless the secret was replaced itself."""
        query = {"_id": user_id, f"{field}.id": enrolment}
        return await self._factors.update_one(query, {"$set": {f"{field}.secret": secret}})


def startup_error(database: Any, known: Container[str]) -> str | None:
    """Return why the service cannot read the stored secrets, or None.

    `known` has the names of its encryption keys.

    Raises pymongo's errors.
    """
    named = {"totp.secret.key": {"$type": "string"}}  # without it, users who are about to enrol would count as null
    unknown = [name for name in database["factors"].distinct("totp.secret.key", named) if name not in known]
    if not unknown:
        return None
    names = ", ".join(sorted(map(str, unknown)))
    return f"it has second factors that were encrypted with another ENCRYPTION_KEY ({names}): is it in no setting?"


def _stored(codes: Sequence[RecoveryCode]) -> list[Document]:
    return [{"prefix": code.prefix, "hash": code.hash} for code in codes]


def _read(user_id: str, document: Document) -> Enrolled:
    totp, pending = document.get("totp"), document.get("pending")
    return Enrolled(
        user_id,
        Totp(totp["id"], totp["secret"], int(totp["step"]), totp["added_at"]) if totp else None,
        Pending(pending["id"], pending["secret"]) if pending else None,
        tuple(RecoveryCode(one["prefix"], one["hash"]) for one in document.get("recovery_codes", ())),
        document.get("now", datetime.now(UTC)),
    )
