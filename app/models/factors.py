"""Second factors: one document for each user who has some, or is about to.

Secrets are encrypted; codes are of use once, by one conditional write each. All times are the database's own ($$NOW).
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from bson import Binary, ObjectId
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from app.database.collection import Collection, Document
from app.models.fields import Check, damage, is_bytes, is_count, is_flag, is_list, is_text, is_time
from app.models.pipelines import later, literals

TRIES = 5  # to confirm a secret
SECRETS = ("totp", "pending")
PAGE = 500
FACTORS = ("totp", "pending", "recovery_codes", "passkeys", "handle")
WITH_SERVER_TIME = dict.fromkeys(FACTORS, 1) | {"now": "$$NOW"}
MOST_PASSKEYS = 20


def _is_totp(value: Any) -> bool:
    return _is_pending(value) and is_count(value.get("step")) and is_time(value.get("added_at"))


def _is_pending(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), ObjectId) and isinstance(value.get("secret"), dict)


def _is_recovery_code(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("prefix")) and is_text(value.get("hash"))


def _is_passkey(value: Any) -> bool:
    return isinstance(value, dict) and not damage(value, PASSKEY_FIELDS, {"used_at": is_time})


PASSKEY_FIELDS: dict[str, Check] = {
    "id": is_bytes,
    "public_key": is_bytes,
    "counter": is_count,
    "backup_eligible": is_flag,
    "backed_up": is_flag,
    "name": is_text,
    "added_at": is_time,
}
FIELDS: dict[str, Check] = {
    "totp": _is_totp,
    "pending": _is_pending,
    "recovery_codes": is_list(_is_recovery_code),
    "passkeys": is_list(_is_passkey),
    "handle": is_bytes,
}
INDEXES = [
    # A credential belongs to one user, or another one could take over the account by registering it again.
    IndexModel("passkeys.id", unique=True, partialFilterExpression={"passkeys.id": {"$exists": True}}),
    IndexModel("totp.secret.key"),  # by which a start finds keys that are not configured
]


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
class Passkey:
    """A passkey, with what its authenticator has told last."""

    id: bytes
    public_key: bytes
    counter: int
    backup_eligible: bool
    backed_up: bool
    name: str
    added_at: datetime
    used_at: datetime | None = None


class NewCredential(Protocol):
    """What an authenticator has told of a new passkey."""

    @property
    def id(self) -> bytes:
        """The id of the credential."""

    @property
    def public_key(self) -> bytes:
        """Its public key."""

    @property
    def counter(self) -> int:
        """The number of its uses, or always 0."""

    @property
    def backup_eligible(self) -> bool:
        """Whether it can be backed up."""

    @property
    def backed_up(self) -> bool:
        """Whether it is."""


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
    passkeys: tuple[Passkey, ...]
    handle: bytes | None
    now: datetime

    @property
    def any(self) -> bool:
        """Whether the user has a factor; recovery codes alone are none."""
        return self.totp is not None or bool(self.passkeys)

    @property
    def kinds(self) -> list[str]:
        """The names of what the user can log in with, besides the password."""
        found = {"totp": self.totp, "recovery_code": self.recovery_codes, "passkey": self.passkeys}
        return [name for name, one in found.items() if one] if self.any else []

    def passkey(self, id_: bytes) -> Passkey | None:
        """Return the passkey with this id, if it is the user's."""
        return next((one for one in self.passkeys if one.id == id_), None)


class PasskeyTaken(Exception):
    """The passkey is registered already, with this user or another one."""


class TooManyPasskeys(Exception):
    """The user has MOST_PASSKEYS passkeys."""


class Factors:
    """The collection of second factors."""

    def __init__(self, collection: Collection) -> None:
        self._factors = collection

    async def of(self, user_id: str) -> Enrolled:
        """Return the factors of a user.

        A damaged one is of no use, and still required.
        """
        document = await self._factors.find_one({"_id": user_id}, WITH_SERVER_TIME) or {}
        return self._read(user_id, document)

    def _read(self, user_id: str, document: Document) -> Enrolled:
        damaged = damage(document, {}, FIELDS)
        if damaged:
            self.report(user_id, f"{', '.join(damaged)} cannot be used")
        return _read(user_id, {name: value for name, value in document.items() if name not in damaged})

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
        query = {"_id": user_id, "$or": [{"totp": {"$ne": None}}, {"passkeys.0": {"$exists": True}}]}
        return await self._factors.update_one(query, {"$set": {"recovery_codes": _stored(codes)}})

    async def remove_totp(self, user_id: str) -> Enrolled | None:
        """Remove the authenticator of a user.

        As part of a transaction. Returns what is left.

        Recovery codes go with the last factor. Returns None if there was no authenticator.
        """
        query = {"_id": user_id, "totp": {"$ne": None}}
        return await self._remove(user_id, query, {"$unset": {"totp": True, "pending": True}})

    async def by_passkey(self, id_: bytes) -> Enrolled | None:
        """Return the factors of the user who has the passkey with this id."""
        document = await self._factors.find_one({"passkeys.id": Binary(id_)}, WITH_SERVER_TIME)
        return self._read(document["_id"], document) if document else None

    async def handle(self, user_id: str, new: bytes) -> bytes:
        """Return the handle by which authenticators know a user.

        The first time it is the new one.
        """
        update = [{"$set": {"handle": {"$ifNull": ["$handle", {"$literal": Binary(new)}]}}}]
        document = await self._factors.find_one_and_update({"_id": user_id}, update, upsert=True)
        return bytes((document or {})["handle"])

    async def add_passkey(
        self, user_id: str, passkey: NewCredential, name: str, *, codes: Sequence[RecoveryCode]
    ) -> None:
        """Add a passkey, as part of a transaction.

        Without codes, the user keeps those that there are.

        Raises TooManyPasskeys, and PasskeyTaken if anybody has this one already.
        """
        given = {"id": Binary(passkey.id), "public_key": Binary(passkey.public_key), "counter": passkey.counter}
        given |= {"backup_eligible": passkey.backup_eligible, "backed_up": passkey.backed_up, "name": name}
        added = literals(given) | {"added_at": "$$NOW"}
        fields: Document = {"passkeys": {"$concatArrays": [{"$ifNull": ["$passkeys", []]}, [added]]}}
        if codes:
            fields["recovery_codes"] = {"$literal": _stored(codes)}
        query = {"_id": user_id, "passkeys.id": {"$ne": Binary(passkey.id)}}
        room = {f"passkeys.{MOST_PASSKEYS - 1}": {"$exists": False}}
        try:
            if await self._factors.update_one(query | room, [{"$set": fields}]):
                return
        except DuplicateKeyError:
            raise PasskeyTaken from None
        raise TooManyPasskeys if await self._factors.find_one(query, {"_id": 1}) else PasskeyTaken

    async def use_passkey(self, user_id: str, id_: bytes, *, counter: int, backed_up: bool) -> bool:
        """Move the counter of a passkey forward, and return whether it did.

        An authenticator that does not count always tells 0; any other one must tell more than before, or it is a copy
        (Web Authentication section 6.1.1).
        """
        moved = {"$lt": counter} if counter else 0
        query = {"_id": user_id, "passkeys": {"$elemMatch": {"id": Binary(id_), "counter": moved}}}
        fields = {"passkeys.$.counter": counter, "passkeys.$.backed_up": backed_up}
        return await self._factors.update_one(query, {"$set": fields, "$currentDate": {"passkeys.$.used_at": True}})

    async def remove_passkey(self, user_id: str, id_: bytes) -> Enrolled | None:
        """Remove a passkey of a user, as part of a transaction.

        Returns what is left, or None without such a one.
        """
        query = {"_id": user_id, "passkeys.id": Binary(id_)}
        return await self._remove(user_id, query, {"$pull": {"passkeys": {"id": Binary(id_)}}})

    async def remove_added_since(self, user_id: str, since: datetime) -> Enrolled:
        """Remove the factors that were added since a time.

        As part of a transaction. Returns what is left.
        """
        recent = {"$gte": since}
        await self._factors.update_one({"_id": user_id, "totp.added_at": recent}, {"$unset": {"totp": True}})
        await self._factors.update_one({"_id": user_id}, {"$pull": {"passkeys": {"added_at": recent}}})
        return await self._without_codes_if_last(user_id)

    async def _remove(self, user_id: str, query: Document, update: Document) -> Enrolled | None:
        if not await self._factors.update_one(query, update):
            return None
        return await self._without_codes_if_last(user_id)

    async def _without_codes_if_last(self, user_id: str) -> Enrolled:
        left = await self.of(user_id)
        if not left.any:
            await self.remove_user(user_id)
        return left

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


def _passkey(stored: Document) -> Passkey:
    fields: dict[str, Any] = {name: stored[name] for name in ("backup_eligible", "backed_up", "name", "added_at")}
    id_, public_key, counter = bytes(stored["id"]), bytes(stored["public_key"]), int(stored["counter"])
    return Passkey(id_, public_key, counter, **fields, used_at=stored.get("used_at"))


def _stored(codes: Sequence[RecoveryCode]) -> list[Document]:
    return [{"prefix": code.prefix, "hash": code.hash} for code in codes]


def _read(user_id: str, document: Document) -> Enrolled:
    totp, pending = document.get("totp"), document.get("pending")
    return Enrolled(
        user_id,
        Totp(totp["id"], totp["secret"], int(totp["step"]), totp["added_at"]) if totp else None,
        Pending(pending["id"], pending["secret"]) if pending else None,
        tuple(RecoveryCode(one["prefix"], one["hash"]) for one in document.get("recovery_codes", ())),
        tuple(_passkey(one) for one in document.get("passkeys", ())),
        document.get("handle"),
        document.get("now", datetime.now(UTC)),
    )
