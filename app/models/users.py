"""Users: names, password hashes, access levels, and the generation of their sessions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Self, TypedDict, Unpack

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from app.database.collection import Collection, Document

INTERRUPTED_PAGE = 100
NETWORKS_REMEMBERED = 5


class Access(IntEnum):
    """A user's access level; each includes those below."""

    GUEST = 0
    USER = 1
    ADMIN = 2


INDEXES = [
    IndexModel("canonical_name", unique=True),
    IndexModel("access", partialFilterExpression={"access": Access.ADMIN}),
    IndexModel("ending", partialFilterExpression={"ending": True}),
]
# Documents of another program lack the canonical name, by which names are unique.
FOREIGN = {"canonical_name": None}
PRESENT = {"canonical_name": {"$ne": None}, "deleted": None}
NOT_MIGRATED = (
    "the users are the Flask predecessor's: python -m tools.migrate_flask_users moves them, see docs/deploy.md"
)


class UsernameTaken(Exception):
    """Another user has this name, in this or another spelling."""


class LastAdmin(Exception):
    """The change would leave the service without an administrator."""


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
    deleted: bool = False  # while the user's sessions are being ended

    @classmethod
    def new(
        cls, username: str, password_hash: str, access: Access = Access.USER, *, network: str | None = None
    ) -> Self:
        """Make a user with a new id, for whom a network is usual.

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
        )

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Read a document of the collection."""
        return cls(
            id=str(document["_id"]),
            username=document["username"],
            password_hash=document["password"],
            access=Access(document["access"]),
            disabled=document["disabled"],
            generation=document["generation"],
            created_at=document["created_at"],
            usual_networks=_usual_networks(document),
            deleted=document.get("deleted", False),
        )

    def to_document(self) -> Document:
        """Return the document of a new user."""
        return {
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


def _usual_networks(document: Document) -> dict[str, datetime]:
    """Return the usual networks with their times; those of an earlier release have none."""
    usual = document.get("usual_networks", ())
    return {
        **{one: document["created_at"] for one in usual if isinstance(one, str)},
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
        return await self._one({"canonical_name": canonical(username)})

    async def by_id(self, user_id: str) -> User | None:
        """Return the user with this id, or None; any text is accepted."""
        return await self._one({"_id": _key(user_id)})

    async def by_id_proven(self, user_id: str) -> User | None:
        """Return the user as of now, which an isolated primary cannot answer."""
        document = await self._users.find_one_proven(PRESENT | {"_id": _key(user_id)})
        return User.from_document(document) if document else None

    async def page(self, after: str | None, limit: int) -> list[User]:
        """Return users in the order of their ids, after a given id.

        All pages cost the same.
        """
        query = PRESENT | ({"_id": {"$gt": _key(after)}} if after else {})
        return [User.from_document(document) for document in await self._users.find(query, limit=limit)]

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Store a stronger hash of the same password, unless the password was changed meanwhile."""
        await self._users.update_one(
            {"_id": _key(user.id), "password": user.password_hash}, {"$set": {"password": password_hash}}
        )

    async def remember_network(self, user: User, network: str) -> None:
        """Add the network of a login to the user's usual ones."""
        added = [{"network": {"$literal": network}, "since": "$$NOW"}]
        latest = {"$concatArrays": [added, {"$ifNull": ["$usual_networks", []]}]}
        await self._users.update_one(
            {"_id": _key(user.id), "usual_networks": {"$ne": network}, "usual_networks.network": {"$ne": network}},
            [{"$set": {"usual_networks": {"$slice": [latest, NETWORKS_REMEMBERED]}}}],
        )

    async def start_generation(self, user: User, **changes: Unpack[Changes]) -> User:
        """Change a user and declare all its sessions ended, as part of a transaction that has read the user.

        Also those that are being opened. Returns the changed user. The sessions themselves are ended in a second step.
        Until `finish_generation` the user is marked, so that another worker can finish if this one dies in between.
        Raises LastAdmin.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        stays_admin = given.get("access", user.access) == Access.ADMIN and not given.get("disabled", user.disabled)
        return await self._start_generation(user, given, stays_admin=stays_admin)

    async def start_deletion(self, user: User) -> User:
        """Declare a user deleted and all its sessions ended, as part of a transaction that has read the user.

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
        found = await self._users.find({"ending": True}, limit=INTERRUPTED_PAGE)
        return [User.from_document(document) for document in found]

    async def lock(self, user_id: str) -> User | None:
        """Return the user with this id, or None, as part of a transaction.

        Writes to the user, so that a concurrent change of it conflicts with the transaction.
        """
        document = await self._users.find_one_and_update(PRESENT | {"_id": _key(user_id)}, {"$inc": {"acts": 1}})
        return User.from_document(document) if document else None

    async def _start_generation(self, user: User, changes: dict[str, Any], *, stays_admin: bool) -> User:
        if user.has_access(Access.ADMIN) and not stays_admin:
            await self._require_another_admin(user)
        changed = await self._users.find_one_and_update(
            {"_id": _key(user.id)}, {"$inc": {"generation": 1}, "$set": {"ending": True, **changes}}
        )
        return User.from_document(changed or {})  # the transaction has read it

    async def _require_another_admin(self, user: User) -> None:
        """Raise LastAdmin without another administrator.

        All such transactions write to one document, or two could remove the last two administrators (write skew).
        """
        await self._locks.find_one_and_update({"_id": "administrators"}, {"$inc": {"changes": 1}}, upsert=True)
        others = {"access": Access.ADMIN, "disabled": False, "deleted": None, "_id": {"$ne": _key(user.id)}}
        if not await self._users.find_one(others, {"_id": 1}):
            raise LastAdmin

    async def _one(self, query: dict[str, Any]) -> User | None:
        document = await self._users.find_one(PRESENT | query)
        return User.from_document(document) if document else None
