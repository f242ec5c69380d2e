"""Users: names, password hashes, access levels, and the generation of their sessions."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Self, TypedDict, Unpack

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from app.database.collection import Collection, Document
from app.models.fields import Check, damage, is_count, is_flag, is_list, is_text, is_time
from app.models.pipelines import later

INTERRUPTED_PAGE = 100
ADMINISTRATORS_PAGE = 100
NETWORKS_REMEMBERED = 5
NAME_LENGTH = 64
NO_PASSWORD = "!"  # noqa: S105 - no password has this hash; as in shadow(5)
LONG_USUAL_MILLISECONDS = 7 * 24 * 3600 * 1000


class Access(IntEnum):
    """A user's access level; each includes those below."""

    GUEST = 0
    USER = 1
    ADMIN = 2


INDEXES = [
    IndexModel("canonical_name", unique=True),
    IndexModel("access", partialFilterExpression={"access": Access.ADMIN}),
    IndexModel("ending", partialFilterExpression={"ending": True}),
    # Verified addresses, and those that their users can get back: unique, although several users may claim an address.
    IndexModel("held_emails.key", unique=True, partialFilterExpression={"held_emails.key": {"$exists": True}}),
]
FIELDS: dict[str, Check] = {
    "username": lambda name: is_text(name) and 0 < len(name) <= NAME_LENGTH,
    "canonical_name": is_text,
    "password": lambda password_hash: is_text(password_hash) and password_hash != "",
    "access": lambda level: is_count(level) and level in list(Access),
    "disabled": is_flag,
    "generation": is_count,
    "created_at": is_time,
}


def _is_usual_network(value: Any) -> bool:
    """Return whether a value is a network with its time, or one without, of an earlier release."""
    return is_text(value) or (isinstance(value, dict) and is_text(value.get("network")) and is_time(value.get("since")))


def _is_email(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("address")) and is_text(value.get("key"))


def _is_held_email(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("key")) and ("until" not in value or is_time(value["until"]))


OPTIONAL: dict[str, Check] = {
    "usual_networks": is_list(_is_usual_network),
    "email": _is_email,
    "new_email": _is_email,
    "held_emails": is_list(_is_held_email),
    "generation_at": is_time,
    "second_factor": is_flag,
    "deleted": is_flag,
}
# Documents of the predecessor lack the canonical name, by which names are unique, and all that this service has added.
FOREIGN = {"canonical_name": None, "generation": None}
NOT_DELETED = {"$nor": [FOREIGN], "deleted": {"$ne": True}}
PRESENT = NOT_DELETED | {"_id": {"$type": "objectId"}}
NOT_MIGRATED = (
    "the users are the Flask predecessor's: python -m tools.migrate_flask_users moves them, see docs/deploy.md"
)
UNUSABLE_IDS = (
    "users whose _id is not an ObjectId cannot log in, and are not listed: "
    'db.users.find({_id: {$not: {$type: "objectId"}}}) finds them; insert them again with an ObjectId'
)


class UsernameTaken(Exception):
    """Another user has this name, in this or another spelling."""


class LastAdmin(Exception):
    """The change would leave the service without an administrator."""


class EmailTaken(Exception):
    """Another user has verified this address, or could get it back."""


@dataclass(frozen=True, slots=True)
class Email:
    """An address as mails are sent to, and the key that all its spellings share."""

    address: str
    key: str


@dataclass(frozen=True, slots=True)
class User:
    """A user as stored in the database."""

    id: str
    username: str
    password_hash: str
    access: Access
    disabled: bool
    # Sessions opened under an earlier generation have ended. One counter on the user ends them all in a single write,
    # including those that a concurrent login is about to open.
    generation: int
    created_at: datetime
    # The networks of the registration and of the latest logins, newest first, with the time from which each was one.
    # Failed attempts elsewhere do not lock the user out there.
    usual_networks: Mapping[str, datetime] = field(default_factory=dict)
    email: Email | None = None
    email_verified: bool = False  # only then the address counts: for logins, resets and notices
    new_email: Email | None = None  # that will replace a verified one, once its code was shown
    generation_at: datetime | None = None  # when the generation was started
    second_factor: bool = False  # a password does not suffice; changed only together with the generation
    deleted: bool = False  # while the user's sessions are being ended
    # The fields of the document that are missing or have a wrong value. Such a user counts as disabled.
    damaged: tuple[str, ...] = ()

    @classmethod
    def new(
        cls,
        username: str,
        password_hash: str,
        access: Access = Access.USER,
        *,
        network: str | None = None,
        email: Email | None = None,
    ) -> Self:
        """Make a user with a new id.

        A network is usual for the user, who claims an address.

        Ids are ordered by the second of their creation.
        """
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # BSON stores milliseconds
        return cls(
            id=str(ObjectId()),
            username=username,
            password_hash=password_hash,
            access=access,
            disabled=False,
            generation=0,
            created_at=now,
            usual_networks={network: now} if network else {},
            email=email,
        )

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Read a document of the collection, whose id is an ObjectId, whatever its other fields are.

        What is missing or wrong is replaced by what permits least, so that the user can be listed, changed and deleted.
        """
        damaged = damage(document, FIELDS, OPTIONAL)
        right = {name: value for name, value in document.items() if name not in damaged}
        return cls(
            id=str(document["_id"]),
            username=right.get("username", ""),
            password_hash=right.get("password", ""),
            access=Access(right.get("access", Access.GUEST)),
            disabled=bool(damaged) or document["disabled"],
            # Higher than any counter, so that starting the next generation ends all sessions.
            generation=int(right.get("generation", time.time())),
            created_at=right.get("created_at", document["_id"].generation_time),
            usual_networks=_usual_networks(right),
            email=_email(right.get("email")),
            email_verified=_verified(right),
            new_email=_email(right.get("new_email")),
            generation_at=right.get("generation_at"),
            second_factor=right.get("second_factor", False),
            deleted=right.get("deleted", False),
            damaged=damaged,
        )

    @property
    def address(self) -> Email | None:
        """The address that counts, if any."""
        return self.email if self.email_verified else None

    def to_document(self) -> Document:
        """Return the document of a new user."""
        email = {"email": asdict(self.email)} if self.email else {}
        return {
            **email,
            "_id": ObjectId(self.id),
            "username": self.username,
            "canonical_name": canonical(self.username),
            "password": self.password_hash,
            "access": self.access,
            "disabled": self.disabled,
            "generation": self.generation,
            "created_at": self.created_at,
            "usual_networks": [{"network": name, "since": since} for name, since in self.usual_networks.items()],
        }

    @property
    def verifiable_hash(self) -> str | None:
        """The hash of the password, if there is one."""
        return None if self.password_hash == NO_PASSWORD else self.password_hash

    def has_access(self, level: Access) -> bool:
        """Return whether the user is enabled and has at least this level."""
        return self.access >= level and not self.disabled


class Changes(TypedDict, total=False):
    """What may be changed of a user, under the names of the database.

    None changes nothing.
    """

    password: str | None  # the hash
    access: Access | None
    disabled: bool | None
    second_factor: bool | None


# When a held address is released; those without end are never.
_UNTIL = {"$ifNull": ["$$this.until", datetime(9999, 1, 1, tzinfo=UTC)]}


def _kept(duration: timedelta, *, besides: str | None = None) -> Document:
    """Return an expression: the held addresses that are not released yet, from now on only for a while."""
    current = {"$and": [{"$ne": ["$$this.key", {"$literal": besides}]}, {"$gt": [_UNTIL, "$$NOW"]}]}
    filtered = {"$filter": {"input": {"$ifNull": ["$held_emails", []]}, "cond": current}}
    return {
        "$map": {
            "input": filtered,
            "in": {"key": "$$this.key", "until": {"$ifNull": ["$$this.until", later(duration)]}},
        }
    }


def email_key(address: str) -> str:
    """Return the key that all spellings of an address share, which has the form of app/schemas/emails.py."""
    return address.lower() if address.isascii() else address


def _email(stored: Any) -> Email | None:
    return Email(stored["address"], stored["key"]) if stored else None


def _verified(document: Document) -> bool:
    """Return whether the user holds the key of its address without end."""
    email = _email(document.get("email"))
    held = [one for one in document.get("held_emails", ()) if not one.get("until")]
    return email is not None and any(one["key"] == email.key for one in held)


def _usual_networks(document: Document) -> dict[str, datetime]:
    """Return the usual networks with their times; those of an earlier release have none."""
    usual = document.get("usual_networks", ())
    return {
        **{one: document.get("created_at", datetime.now(UTC)) for one in usual if isinstance(one, str)},
        **{one["network"]: one["since"] for one in usual if isinstance(one, dict)},
    }


def canonical(username: str) -> str:
    """Return the key that all spellings of a name share.

    Only ASCII is folded: case folding would turn look-alikes such as the Kelvin sign into letters.
    """
    return username.casefold() if username.isascii() else username


def startup_error(database: Database[Any]) -> str | None:
    """Return why the users of this database cannot be served, or None."""
    return NOT_MIGRATED if database["users"].find_one(FOREIGN, {"_id": 1}) else None


def startup_warning(database: Database[Any]) -> str | None:
    """Return which users cannot be served, or None.

    MongoDB orders ids by their types, so if the first and the last are ObjectIds, all are.
    """
    for direction in (ASCENDING, DESCENDING):
        found = database["users"].find_one({}, {"_id": 1}, sort=[("_id", direction)])
        if found and not isinstance(found["_id"], ObjectId):
            return UNUSABLE_IDS
    return None


def _key(user_id: str) -> ObjectId | None:
    try:
        return ObjectId(user_id)
    except InvalidId:
        return None


class Users:
    """The collection of users."""

    def __init__(self, collection: Collection, locks: Collection) -> None:
        self._users = collection
        self._locks = locks

    async def add(self, user: User) -> None:
        """Insert a new user. Raises UsernameTaken."""
        try:
            await self._users.insert(user.to_document())
        except DuplicateKeyError:
            raise UsernameTaken from None

    async def by_name(self, username: str) -> User | None:
        """Return the user with this name in any spelling, or None."""
        document = await self._users.find_one(NOT_DELETED | {"canonical_name": canonical(username)})
        if document and not isinstance(document["_id"], ObjectId):
            self._users.report(f"with an _id of the type {type(document['_id']).__name__}", "it must be an ObjectId")
            return None
        return self._read(document)

    async def by_login(self, name: str) -> User | None:
        """Return the user with this name or verified address, or None."""
        return await (self.by_email(email_key(name)) if "@" in name else self.by_name(name))

    async def by_email(self, key: str) -> User | None:
        """Return the user who has verified the address with this key, or None."""
        # The first condition is for MongoDB, which would not find the index, a partial one, by the second one alone.
        holding = {"held_emails.key": key, "held_emails": {"$elemMatch": {"key": key, "until": None}}}
        return self._read(await self._users.find_one(PRESENT | holding))

    async def by_id(self, user_id: str) -> User | None:
        """Return the user with this id, or None; any text is accepted."""
        key = _key(user_id)
        return self._read(await self._users.find_one(PRESENT | {"_id": key})) if key else None

    async def by_id_proven(self, user_id: str) -> User | None:
        """Return the user as of now, which an isolated primary cannot answer."""
        key = _key(user_id)
        return self._read(await self._users.find_one_proven(PRESENT | {"_id": key})) if key else None

    async def page(self, after: str | None, limit: int) -> list[User]:
        """Return users in the order of their ids, after a given id.

        All pages cost the same.
        """
        query = PRESENT | ({"_id": {"$gt": _key(after)}} if after else {})
        return self._read_all(await self._users.find(query, limit=limit))

    def report(self, user: User, reason: str) -> None:
        """Log that the document of a user cannot be used as it is."""
        self._users.report(user.id, reason)

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Store a stronger hash of the same password, unless the password was changed meanwhile."""
        await self._users.update_one(
            {"_id": _key(user.id), "password": user.password_hash}, {"$set": {"password": password_hash}}
        )

    async def claim_email(self, user: User, email: Email) -> None:
        """Store an address that is to be verified, as part of a transaction.

        A verified one stays beside it until then.
        """
        field_ = "new_email" if user.email_verified else "email"
        await self._users.update_one({"_id": _key(user.id)}, {"$set": {field_: asdict(email)}})

    async def verify_email(self, user: User, email: Email, *, kept: timedelta) -> None:
        """Make an address the verified one, as part of a transaction.

        The one before is held for a while.

        Raises EmailTaken.
        """
        held = {"$concatArrays": [_kept(kept, besides=email.key), [{"key": {"$literal": email.key}}]]}
        await self._hold(user, email, held)

    async def remove_email(self, user: User, *, kept: timedelta) -> None:
        """Remove the address, as part of a transaction.

        A verified one is held for a while.
        """
        update: list[Document] = [{"$set": {"held_emails": _kept(kept)}}, {"$unset": ["email", "new_email"]}]
        await self._users.update_one({"_id": _key(user.id)}, update)

    async def restore_email(self, user: User, email: Email) -> None:
        """Make an earlier address the verified one again.

        As part of a transaction. No other is held.

        Raises EmailTaken.
        """
        await self._hold(user, email, [{"key": {"$literal": email.key}}])

    async def clear_second_factor(self, user: User) -> None:
        """Let a password suffice, as part of the transaction that starts a generation."""
        await self._users.update_one({"_id": _key(user.id)}, {"$set": {"second_factor": False}})

    async def remember_network(self, user: User, network: str, *, at_once: bool = False) -> None:
        """Add the network of a login to the user's usual ones.

        With `at_once` it counts as one for long.
        """
        since = {"$subtract": ["$$NOW", LONG_USUAL_MILLISECONDS]} if at_once else "$$NOW"
        added = [{"network": {"$literal": network}, "since": since}]
        latest = {"$concatArrays": [added, {"$ifNull": ["$usual_networks", []]}]}
        await self._users.update_one(
            {"_id": _key(user.id), "usual_networks": {"$ne": network}, "usual_networks.network": {"$ne": network}},
            [{"$set": {"usual_networks": {"$slice": [latest, NETWORKS_REMEMBERED]}}}],
        )

    async def start_generation(self, user: User, **changes: Unpack[Changes]) -> User:
        """Change a user and declare all its sessions ended.

        As part of a transaction that has read the user.

        Also those that are being opened. Returns the changed user. The sessions themselves are ended in a second step.
        Until `finish_generation` the user is marked, so that another worker can finish if this one dies in between.
        Raises LastAdmin.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        stays_admin = given.get("access", user.access) == Access.ADMIN and not given.get("disabled", user.disabled)
        return await self._start_generation(user, given, stays_admin=stays_admin)

    async def start_deletion(self, user: User) -> User:
        """Declare a user deleted and all its sessions ended.

        As part of a transaction that has read the user.

        `finish_generation` removes it. Raises LastAdmin.
        """
        return await self._start_generation(user, {"deleted": True, "disabled": True}, stays_admin=False)

    async def finish_generation(self, user: User) -> None:
        """Remove the mark, or the user if it was deleted.

        Does nothing if another generation was started.
        """
        query = {"_id": _key(user.id), "generation": user.generation}
        if user.deleted:
            await self._users.delete_one(query)
        else:
            await self._users.update_one(query, {"$unset": {"ending": True}})

    async def with_unfinished_generation(self) -> list[User]:
        """Return a page of users whose generation was started but not finished."""
        found = await self._users.find({"ending": True, "_id": {"$type": "objectId"}}, limit=INTERRUPTED_PAGE)
        users = self._read_all(found)
        for user, document in zip(users, found, strict=True):
            if "generation" in user.damaged:  # `finish_generation` needs it
                unchanged = {"_id": document["_id"], "generation": {"$eq": document.get("generation")}}
                await self._users.update_one(unchanged, {"$set": {"generation": user.generation}})
        return users

    async def lock(self, user_id: str) -> User | None:
        """Return the user with this id, or None, as part of a transaction.

        Writes to the user, so that a concurrent change of it conflicts with the transaction.
        """
        key = _key(user_id)
        written = {"$set": {"touched": ObjectId()}}  # another value each time, which succeeds whatever was there
        return self._read(await self._users.find_one_and_update(PRESENT | {"_id": key}, written)) if key else None

    async def _hold(self, user: User, email: Email, held: Any) -> None:
        """Make an address the verified one. Raises EmailTaken."""
        over = {"$and": [{"$eq": ["$$this.key", {"$literal": email.key}]}, {"$lte": [_UNTIL, "$$NOW"]}]}
        release = [{"$set": {"held_emails": {"$filter": {"input": "$held_emails", "cond": {"$not": over}}}}}]
        await self._users.update_many({"held_emails.key": email.key}, release)
        emails = {"email": {"$literal": asdict(email)}, "held_emails": held}
        update: list[Document] = [{"$set": emails}, {"$unset": ["new_email"]}]
        try:
            await self._users.update_one({"_id": _key(user.id)}, update)
        except DuplicateKeyError:
            raise EmailTaken from None

    async def _start_generation(self, user: User, changes: dict[str, Any], *, stays_admin: bool) -> User:
        if user.has_access(Access.ADMIN) and not stays_admin:
            await self._require_another_admin(user)
        # The transaction has read the user, so the generation is still the same.
        changed = await self._users.find_one_and_update(
            {"_id": _key(user.id)},
            {
                "$set": {"generation": user.generation + 1, "ending": True, **changes},
                "$currentDate": {"generation_at": True},
                "$unset": {"new_email": True},  # or it could be verified after what was to stop it
            },
        )
        return User.from_document(changed or {})  # the transaction has read it

    async def _require_another_admin(self, user: User) -> None:
        """Raise LastAdmin without another administrator who can log in.

        All such transactions write to one document, or two could remove the last two administrators (write skew).
        """
        await self._locks.find_one_and_update({"_id": "administrators"}, {"$set": {"touched": ObjectId()}}, upsert=True)
        others = NOT_DELETED | {
            "access": Access.ADMIN,
            "disabled": False,
            "_id": {"$type": "objectId", "$ne": _key(user.id)},
        }
        found = await self._users.find(others, limit=ADMINISTRATORS_PAGE)
        if all(other.damaged for other in self._read_all(found)):
            raise LastAdmin

    def _read(self, document: Document | None) -> User | None:
        return self._read_all([document])[0] if document else None

    def _read_all(self, documents: list[Document]) -> list[User]:
        users = [User.from_document(document) for document in documents]
        for user in users:
            if user.damaged:
                self.report(user, f"the user counts as disabled because of {', '.join(user.damaged)}")
        return users
