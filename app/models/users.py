"""Users: who they are, what they may do, and which generation of their sessions still counts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Self

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from app.models.collection import Collection, Document

INDEXES = [
    IndexModel("canonical_name", unique=True),
    IndexModel("ending", partialFilterExpression={"ending": True}),
]
ENDING_PAGE = 100


class Access(IntEnum):
    """How much a user may do; each level includes those below."""

    GUEST = 0
    USER = 1
    ADMIN = 2


class UsernameTaken(Exception):
    """Another user has this name, in this or another spelling."""


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

    @classmethod
    def new(cls, username: str, password_hash: str) -> Self:
        """Make a user with the default access and a fresh id; ids sort by the second of their making."""
        now = datetime.now(UTC)
        return cls(
            id=str(ObjectId()),
            username=username,
            password_hash=password_hash,
            access=Access.USER,
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
        )

    def allowed(self, level: Access) -> bool:
        """Tell whether the user has this level or a higher one."""
        return self.access >= level


def canonical(username: str) -> str:
    """Return the key under which all spellings of a name are one."""
    return username.casefold()


def _key(user_id: str) -> ObjectId | None:
    try:
        return ObjectId(user_id)
    except InvalidId:
        return None


class Users:
    """The collection of users."""

    def __init__(self, collection: Collection) -> None:
        self._users = collection

    async def prepare(self) -> None:
        """Make the unique index on the canonical name."""
        await self._users.prepare()

    async def add(self, user: User) -> None:
        """Insert a new user. Raises UsernameTaken."""
        document = {
            "_id": ObjectId(user.id),
            "username": user.username,
            "canonical_name": canonical(user.username),
            "password": user.password_hash,
            "access": user.access,
            "disabled": user.disabled,
            "generation": user.generation,
            "created_at": user.created_at,
        }
        try:
            await self._users.insert(document)
        except DuplicateKeyError:
            raise UsernameTaken from None

    async def by_name(self, username: str) -> User | None:
        """Return the user of this name in any spelling, or None."""
        return await self._one({"canonical_name": canonical(username)})

    async def by_id(self, user_id: str) -> User | None:
        """Return the user with this id, or None; anything that is no id is nobody's."""
        return await self._one({"_id": _key(user_id)})

    async def replace_hash(self, user: User, password_hash: str) -> None:
        """Store a stronger hash of the same password, unless the password was changed meanwhile."""
        await self._users.update_one(
            {"_id": _key(user.id), "password": user.password_hash}, {"$set": {"password": password_hash}}
        )

    async def start_generation(self, user_id: str) -> User | None:
        """Declare every session of the user over that is open now or being opened.

        The user is marked until `generation_started` says that the sessions themselves have been ended, so
        that another worker can finish if this one dies in between.
        """
        document = await self._users.find_one_and_update(
            {"_id": _key(user_id)}, {"$inc": {"generation": 1}, "$set": {"ending": True}}
        )
        return User.from_document(document) if document else None

    async def generation_started(self, user: User) -> None:
        """Take the mark away, unless yet another generation has been started."""
        await self._users.update_one(
            {"_id": _key(user.id), "generation": user.generation}, {"$unset": {"ending": True}}
        )

    async def with_sessions_to_end(self) -> list[User]:
        """Return users whose new generation was declared but not carried out."""
        return [
            User.from_document(document) for document in await self._users.find({"ending": True}, limit=ENDING_PAGE)
        ]

    async def _one(self, query: dict[str, Any]) -> User | None:
        document = await self._users.find_one(query)
        return User.from_document(document) if document else None
