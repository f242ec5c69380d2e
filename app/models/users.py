"""Users: who they are, what they may do, and which generation of their sessions still counts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Self, TypedDict, Unpack

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from app.database.collection import Collection, Document
from app.database.lock import Lock

ENDING_PAGE = 100
NETWORKS_REMEMBERED = 5


class Access(IntEnum):
    """How much a user may do; each level includes those below."""

    GUEST = 0
    USER = 1
    ADMIN = 2


INDEXES = [
    IndexModel("canonical_name", unique=True),
    IndexModel("access", partialFilterExpression={"access": Access.ADMIN}),
    IndexModel("ending", partialFilterExpression={"ending": True}),
]


# Whoever another program has put there without the name under which all spellings are one.
UNKNOWN = {"canonical_name": None}
NOT_MIGRATED = (
    "the users are the Flask predecessor's: python -m tools.migrate_flask_users moves them, see docs/deploy.md"
)
PRESENT = {"canonical_name": {"$ne": None}, "deleted": None}


class UsernameTaken(Exception):
    """Another user has this name, in this or another spelling."""


class LastAdmin(Exception):
    """The change would leave nobody who can undo it."""


class ChangedMeanwhile(Exception):
    """Somebody else changed the user since it was read; what was to be done must be thought over."""


@dataclass(frozen=True, slots=True)
class User:
    """A user as the database has it."""

    id: str
    username: str
    password_hash: str
    access: Access
    disabled: bool
    # Sessions opened under an earlier generation are over. One counter on the user ends them all in a
    # single write, also those that a login in flight is about to open.
    generation: int
    created_at: datetime
    # Where the user has logged in from, the newest place first: there the failures of others do not lock it out.
    usual_networks: tuple[str, ...] = ()
    deleted: bool = False  # declared so, while its sessions are being ended

    @classmethod
    def new(cls, username: str, password_hash: str, access: Access = Access.USER) -> Self:
        """Make a user with a fresh id; ids sort by the second of their making."""
        now = datetime.now(UTC)
        return cls(
            id=str(ObjectId()),
            username=username,
            password_hash=password_hash,
            access=access,
            disabled=False,
            generation=0,
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),  # BSON keeps milliseconds
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
            usual_networks=tuple(document.get("usual_networks", ())),
            deleted=document.get("deleted", False),
        )

    def to_document(self) -> Document:
        """Return the document of a user who is new."""
        return {
            "_id": ObjectId(self.id),
            "username": self.username,
            "canonical_name": canonical(self.username),
            "password": self.password_hash,
            "access": self.access,
            "disabled": self.disabled,
            "generation": self.generation,
            "created_at": self.created_at,
        }

    def allowed(self, level: Access) -> bool:
        """Tell whether the user has this level or a higher one, and may use it."""
        return self.access >= level and not self.disabled


class Changes(TypedDict, total=False):
    """What may be changed of a user, as the database names it; None changes nothing."""

    password: str | None  # the hash
    access: Access | None
    disabled: bool | None


def canonical(username: str) -> str:
    """Return the key under which all spellings of a name are one; what is no name of ours is only like itself."""
    return username.casefold() if username.isascii() else username  # folded, the sign for kelvin would be a k


def _key(user_id: str) -> ObjectId | None:
    try:
        return ObjectId(user_id)
    except InvalidId:
        return None


def objection(database: Database[Any]) -> str | None:
    """Say why the users of this database cannot be served, or None."""
    return NOT_MIGRATED if database["users"].find_one(UNKNOWN, {"_id": 1}) else None


class Users:
    """The collection of users."""

    def __init__(self, collection: Collection, administrators: Lock) -> None:
        self._users = collection
        self._administrators = administrators

    async def prepare(self) -> None:
        """Make the unique index on the canonical name. Raises Unprepared."""
        await self._users.prepare()

    async def add(self, user: User) -> None:
        """Insert a new user. Raises UsernameTaken."""
        try:
            await self._users.insert(user.to_document())
        except DuplicateKeyError:
            raise UsernameTaken from None

    async def by_name(self, username: str) -> User | None:
        """Return the user of this name in any spelling, or None."""
        return await self._one({"canonical_name": canonical(username)})

    async def by_id(self, user_id: str) -> User | None:
        """Return the user with this id, or None; anything that is no id is nobody's."""
        return await self._one({"_id": _key(user_id)})

    async def page(self, after: str | None, limit: int) -> list[User]:
        """Return users in the order of their ids, from behind a given one; page 10,000 costs what page 1 costs."""
        query = PRESENT | ({"_id": {"$gt": _key(after)}} if after else {})
        return [User.from_document(document) for document in await self._users.find(query, limit=limit)]

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Store a stronger hash of the same password, unless the password was changed meanwhile."""
        await self._users.update_one(
            {"_id": _key(user.id), "password": user.password_hash}, {"$set": {"password": password_hash}}
        )

    async def remember_network(self, user: User, network: str) -> None:
        """Remember where a login came from, among the last few."""
        latest = {"$each": [network], "$position": 0, "$slice": NETWORKS_REMEMBERED}
        await self._users.update_one(
            {"_id": _key(user.id), "usual_networks": {"$ne": network}}, {"$push": {"usual_networks": latest}}
        )

    async def change(self, user: User, **changes: Unpack[Changes]) -> User:
        """Change a user and declare every session over that is open now or being opened; return it as it is then.

        Two steps: the sessions themselves are ended next. Until `generation_started` says so the user is
        marked, and another worker can finish if this one dies in between.
        Raises ChangedMeanwhile or LastAdmin.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        stays_admin = given.get("access", user.access) == Access.ADMIN and not given.get("disabled", user.disabled)
        return await self._start_generation(user, given, stays_admin=stays_admin)

    async def delete(self, user: User) -> User:
        """Declare a user deleted and every session over; once those are ended, `generation_started` removes it.

        Raises ChangedMeanwhile or LastAdmin.
        """
        return await self._start_generation(user, {"deleted": True, "disabled": True}, stays_admin=False)

    async def generation_started(self, user: User) -> None:
        """Take the mark away, unless yet another generation has been started; remove who was deleted."""
        query = {"_id": _key(user.id), "generation": user.generation}
        if user.deleted:
            await self._users.delete_one(query)
        else:
            await self._users.update_one(query, {"$unset": {"ending": True}})

    async def with_sessions_to_end(self) -> list[User]:
        """Return users whose new generation was declared but not carried out."""
        return [
            User.from_document(document) for document in await self._users.find({"ending": True}, limit=ENDING_PAGE)
        ]

    async def _start_generation(self, user: User, changes: dict[str, Any], *, stays_admin: bool) -> User:
        if stays_admin or not user.allowed(Access.ADMIN):
            return await self._compare_and_change(user, changes, {})
        # One after the other, or two administrators could remove each other at the same moment.
        async with self._administrators.held() as deadline:
            others = {"access": Access.ADMIN, "disabled": False, "_id": {"$ne": _key(user.id)}}
            if not await self._users.find_one(others, {"_id": 1}):
                raise LastAdmin
            return await self._compare_and_change(user, changes, {"$expr": {"$lt": ["$$NOW", deadline]}})

    async def _compare_and_change(self, user: User, changes: dict[str, Any], condition: dict[str, Any]) -> User:
        document = await self._users.find_one_and_update(
            {"_id": _key(user.id), "generation": user.generation, "deleted": None, **condition},
            {"$inc": {"generation": 1}, "$set": {"ending": True, **changes}},
        )
        if document is None:
            raise ChangedMeanwhile
        return User.from_document(document)

    async def _one(self, query: dict[str, Any]) -> User | None:
        document = await self._users.find_one(PRESENT | query)
        return User.from_document(document) if document else None
