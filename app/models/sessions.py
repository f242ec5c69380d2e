"""Sessions: opened by a login, continued by refreshes, ended once.

All times are the database's own ($$NOW), so that the clocks of the service's machines do not matter.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from bson import Timestamp
from pymongo import DESCENDING, IndexModel

from app.database.collection import Collection, Document
from app.database.proven import ProvenReader
from app.models.users import Access, User

# An ended session is stored until no access token of it can be valid: ACCESS_TOKEN_SECONDS is at most an hour, and no
# token outlives its session, both by the clock of the machine that issued it.
CLOCKS_DIFFER_SECONDS = 600
KEEP_ENDED_SECONDS = 3600 + CLOCKS_DIFFER_SECONDS
# The times of the latest rotations are stored; older tokens are never within the grace period.
ROTATIONS_REMEMBERED = 8
FEED_PAGE = 5000
INTERRUPTED_PAGE = 100
LIST_LENGTH = 1000

INDEXES = [
    IndexModel("user_id"),
    # Ended sessions have no expiry, so these are the active ones.
    IndexModel([("user_id", 1), ("refreshed_at", -1)], partialFilterExpression={"expires_at": {"$exists": True}}),
    IndexModel("expires_at", expireAfterSeconds=CLOCKS_DIFFER_SECONDS),
    IndexModel("ended_at", expireAfterSeconds=KEEP_ENDED_SECONDS),
    IndexModel("ending", partialFilterExpression={"ending": True}),
    IndexModel([("ended", 1), ("_id", 1)], partialFilterExpression={"ended": {"$exists": True}}),
]
STATE = ("user_id", "access", "counter", "rotations", "ended", "expires_at")
WITH_SERVER_TIME = dict.fromkeys(STATE, 1) | {"now": "$$NOW"}
UNEXPIRED = {"ended": None, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
ACTIVE = {"ending": None, **UNEXPIRED}
# Without an expiry, an ended session is removed by the time of its end alone, also if settings change meanwhile.
END = {
    "$currentDate": {"ended": {"$type": "timestamp"}, "ended_at": True},
    "$unset": {"expires_at": True, "ending": True},
}


@dataclass(frozen=True, slots=True)
class Device:
    """Where a login came from, as the user sees it in the list of sessions."""

    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class ActiveSession:
    """What a user may see of an active session."""

    id: str
    created_at: datetime
    refreshed_at: datetime
    address: str
    user_agent: str

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Read a document of the collection."""
        return cls(
            document["_id"], *(document[name] for name in ("created_at", "refreshed_at", "address", "user_agent"))
        )


class SessionOver(Exception):
    """The session was ended, has expired, or never existed."""


class TokenReused(Exception):
    """A refresh token was used again after its grace period.

    It was stolen, or its client does not store successors (RFC 9700 section 4.14.2).
    """

    def __init__(self, user_id: str) -> None:
        super().__init__()
        self.user_id = user_id


@dataclass(frozen=True, slots=True)
class Session:
    """A session.

    `counter` is the number of rotations, and part of the current refresh token.
    """

    id: str
    user_id: str
    access: Access
    counter: int
    expires_at: datetime

    @classmethod
    def from_document(cls, document: Document, counter: int | None = None) -> Self:
        """Read a document of the collection, with its own counter or an earlier one."""
        return cls(
            id=document["_id"],
            user_id=document["user_id"],
            access=Access(document["access"]),
            counter=document["counter"] if counter is None else counter,
            expires_at=document["expires_at"],
        )


class Sessions:
    """The collection of sessions.

    The ended ones are the feed that every worker follows.
    """

    def __init__(
        self,
        collection: Collection,
        feed: ProvenReader,
        *,
        idle_seconds: int,
        absolute_seconds: int,
        grace_seconds: int,
        per_user: int,
    ) -> None:
        self._sessions = collection
        self._feed = feed
        self._idle = idle_seconds * 1000
        self._absolute = absolute_seconds * 1000
        self._grace = timedelta(seconds=grace_seconds)
        self._per_user = per_user

    async def open(self, user: User, device: Device) -> Session:
        """Open a session with a new random id of 128 bits."""
        given = {
            "user_id": user.id,
            "access": user.access,
            "generation": user.generation,
            "counter": 0,
            "rotations": [],
            "address": device.address,
            "user_agent": device.user_agent,
        }
        # $literal, because a pipeline would evaluate a text that begins with $ (NoSQL injection).
        fields: Document = {name: {"$literal": value} for name, value in given.items()}
        fields |= {"created_at": "$$NOW", "refreshed_at": "$$NOW", "expires_at": self._expiry("$$NOW")}
        document = await self._sessions.find_one_and_update(
            {"_id": secrets.token_urlsafe(16)}, [{"$set": fields}], upsert=True
        )
        return Session.from_document(document or {})  # an upsert always has a result

    async def rotate(self, session_id: str, counter: int) -> Session:
        """Exchange the token with this counter for its successor.

        Of any number of callers with one token exactly one moves the counter; the others receive the same successor
        within the grace period, which is measured from that rotation. An older token ends the session. Raises
        SessionOver or TokenReused.
        """
        moved = await self._sessions.find_one_and_update(
            {"_id": session_id, "counter": counter, **ACTIVE},
            [
                {
                    "$set": {
                        "counter": {"$add": ["$counter", 1]},
                        "rotations": {"$slice": [{"$concatArrays": [["$$NOW"], "$rotations"]}, ROTATIONS_REMEMBERED]},
                        "refreshed_at": "$$NOW",
                        "expires_at": self._expiry("$created_at"),
                    }
                }
            ],
        )
        if moved:
            return Session.from_document(moved)
        return await self._already_rotated(session_id, counter)

    async def require_active(self, session_id: str, user_id: str, generation: int | None = None) -> None:
        """Require that a session of this user (and generation) is active, as part of a transaction.

        Writes to the session, so that a concurrent end of it conflicts with the transaction. Raises SessionOver.
        """
        query: Document = {"_id": session_id, "user_id": user_id, **ACTIVE}
        if generation is not None:
            query["generation"] = generation
        if not await self._sessions.update_one(query, {"$inc": {"acts": 1}}):
            raise SessionOver

    async def active(self, user_id: str) -> list[ActiveSession]:
        """Return the active sessions of a user, newest first."""
        query = {"user_id": user_id, "expires_at": {"$exists": True}, **UNEXPIRED}
        found = await self._sessions.find(query, sort="created_at", direction=DESCENDING, limit=LIST_LENGTH)
        return [ActiveSession.from_document(document) for document in found]

    async def start_end(self, session_id: str, user_id: str) -> bool:
        """Mark a session of this user as ending and return whether it was active, as part of a transaction.

        It can no longer be continued. `end` must follow: the place of an end in the feed is taken when it is written,
        but a transaction shows it when it commits, which may be too late for those who follow.
        """
        query = {"_id": session_id, "user_id": user_id, **UNEXPIRED}
        return await self._sessions.update_one(query, {"$set": {"ending": True}})

    async def end(self, session_id: str, user_id: str) -> bool:
        """End a session of this user and return whether it was active."""
        return await self._sessions.update_one({"_id": session_id, "user_id": user_id, **UNEXPIRED}, END)

    async def with_unfinished_end(self) -> list[tuple[str, str]]:
        """Return a page of sessions, and their users, whose end was started but not finished."""
        found = await self._sessions.find({"ending": True}, {"user_id": 1}, limit=INTERRUPTED_PAGE)
        return [(document["_id"], document["user_id"]) for document in found]

    async def end_all(self, user_id: str, generation: int) -> list[str]:
        """End the user's sessions of earlier generations.

        Returns the ids of ended sessions, at most a page.
        """
        await self._sessions.update_many({"user_id": user_id, "generation": {"$lt": generation}, "ended": None}, END)
        ended = await self._sessions.find({"user_id": user_id, "ended": {"$ne": None}}, {"_id": 1}, limit=FEED_PAGE)
        return [document["_id"] for document in ended]

    async def end_surplus(self, user_id: str) -> list[str]:
        """End the sessions that a user has beyond the limit: those that were refreshed longest ago.

        Returns their ids, at most a page.
        """
        query = {"user_id": user_id, "expires_at": {"$exists": True}, **UNEXPIRED}
        surplus = await self._sessions.find(
            query, {"_id": 1}, sort="refreshed_at", direction=DESCENDING, skip=self._per_user, limit=LIST_LENGTH
        )
        ids = [document["_id"] for document in surplus]
        if ids:
            await self._sessions.update_many({"_id": {"$in": ids}, "ended": None}, END)
        return ids

    async def discard(self, session_id: str) -> None:
        """Remove a session of which no token was issued."""
        await self._sessions.delete_one({"_id": session_id})

    async def remove_user(self, user_id: str) -> None:
        """Remove the personal data of a user's sessions.

        The ended sessions themselves stay for the feed.
        """
        await self._sessions.update_many({"user_id": user_id}, {"$unset": {"address": True, "user_agent": True}})

    async def ended_since(self, since: Timestamp, *, proven: bool) -> list[tuple[Timestamp, str]]:
        """Return a page of ended sessions with their places in the feed, oldest first.

        After a full page there may be more. A proven page has every end that was acknowledged before the call. Places
        are times of the servers' logical clock: unique, and never set back. Raises pymongo's errors.
        """
        query = {"ended": {"$gte": since}}
        found = await self._feed.find(query, {"ended": 1}, sort="ended", limit=FEED_PAGE, proven=proven)
        return [(document["ended"], document["_id"]) for document in found]

    async def _already_rotated(self, session_id: str, counter: int) -> Session:
        # Proven, because an isolated primary would continue a session that was ended elsewhere.
        document = await self._sessions.find_one_proven({"_id": session_id}, WITH_SERVER_TIME)
        if document is None or document.get("ended") or document["expires_at"] <= document["now"]:
            raise SessionOver
        rotations_ago: int = document["counter"] - counter
        rotated: list[datetime] = document["rotations"]
        if rotations_ago <= 0:  # newer than the database, which must have been restored from a backup
            raise SessionOver
        if rotations_ago <= len(rotated) and document["now"] - rotated[rotations_ago - 1] <= self._grace:
            return Session.from_document(document, counter + 1)
        await self.end(session_id, document["user_id"])
        raise TokenReused(document["user_id"])

    def _expiry(self, created_at: str) -> dict[str, Any]:
        idle, absolute = {"$add": ["$$NOW", self._idle]}, {"$add": [created_at, self._absolute]}
        return {"$min": [idle, absolute]}
