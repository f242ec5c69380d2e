"""Sessions: opened by a login, continued by refreshes, ended once.

All times are the database's own ($$NOW), so that the clocks of the service's machines do not matter.
"""

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId, Timestamp
from pymongo import DESCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from app.database.collection import Collection, Document
from app.database.failures import OwnError
from app.database.proven import ProvenReader
from app.models.fields import Check, damage, is_count, is_list, is_text, is_time
from app.models.pipelines import literals
from app.models.users import Access, User

# An ended session is stored until no access token of it can be valid: ACCESS_TOKEN_SECONDS is at most an hour, and no
# token outlives its session, both by the clock of the machine that issued it.
CLOCKS_DIFFER_SECONDS = 600
LONGEST_TOKEN_SECONDS = 3600
KEEP_ENDED_SECONDS = LONGEST_TOKEN_SECONDS + CLOCKS_DIFFER_SECONDS
# The times of the latest rotations are stored; older tokens are never within the grace period.
ROTATIONS_REMEMBERED = 8
FEED_PAGE = 5000
INTERRUPTED_PAGE = 100
LIST_LENGTH = 1000
SESSION_ID = re.compile(r"[\w-]{22}", re.ASCII)  # 128 bits in Base64url
KEY_PREFIX = "key "  # of a dropped key's id in the feed, followed by the key's name

INDEXES = [
    IndexModel("user_id"),
    # Ended sessions have no expiry, so these are the active ones.
    IndexModel([("user_id", 1), ("refreshed_at", -1)], partialFilterExpression={"expires_at": {"$exists": True}}),
    IndexModel("expires_at", expireAfterSeconds=CLOCKS_DIFFER_SECONDS),
    IndexModel("ended_at", expireAfterSeconds=KEEP_ENDED_SECONDS),
    IndexModel("ending", partialFilterExpression={"ending": True}),
    IndexModel([("ended", 1), ("_id", 1)], partialFilterExpression={"ended": {"$exists": True}}),
]
FIELDS: dict[str, Check] = {
    "_id": is_text,
    "user_id": is_text,
    "access": lambda level: is_count(level) and level in list(Access),
    "generation": is_count,
    "counter": is_count,
    "rotations": is_list(is_time),
    "address": is_text,
    "user_agent": is_text,
    "created_at": is_time,
    "refreshed_at": is_time,
    "expires_at": is_time,
}
OPTIONAL: dict[str, Check] = {"authenticated_at": is_time, "amr": is_list(is_text)}
# What a rotation computes with; another type would fail the command.
LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # later times cannot be added to
COMPUTABLE = [
    {"$in": [{"$type": "$counter"}, ["int", "long", "double"]]},
    {"$isArray": "$rotations"},
    {"$eq": [{"$type": "$created_at"}, "date"]},
    {"$lt": ["$created_at", LATEST]},
]
WITH_SERVER_TIME = dict.fromkeys((*FIELDS, *OPTIONAL, "ended"), 1) | {"now": "$$NOW"}
NOT_ENDED = {"ended": {"$not": {"$type": "timestamp"}}}
UNEXPIRED = {"ended": None, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
INDEXED = {"expires_at": {"$exists": True}, **UNEXPIRED}  # the condition of the partial index of active sessions
ACTIVE = {"ending": None, **UNEXPIRED}
ROTATABLE = {**ACTIVE, "$expr": {"$and": [UNEXPIRED["$expr"], *COMPUTABLE]}}
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

    `counter` is the number of rotations, and part of the current refresh token. `authenticated_at` is the time of the
    login, and `amr` how the user authenticated (RFC 8176); sessions of an earlier release have neither.
    """

    id: str
    user_id: str
    access: Access
    counter: int
    expires_at: datetime
    authenticated_at: datetime | None
    amr: tuple[str, ...]


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

    async def open(
        self,
        user: User,
        device: Device,
        *,
        amr: Sequence[str],
        created_at: datetime | None = None,
        authenticated_at: datetime | None = None,
    ) -> Session:
        """Open a session with a new random id of 128 bits.

        `created_at` is that of a session which the new one replaces, and `authenticated_at` the time of an earlier
        authentication.
        """
        given = {
            "user_id": user.id,
            "access": user.access,
            "generation": user.generation,
            "counter": 0,
            "rotations": [],
            "address": device.address,
            "user_agent": device.user_agent,
            "amr": list(amr),
        }
        fields = literals(given)
        since = created_at or "$$NOW"
        fields |= {"created_at": since, "refreshed_at": "$$NOW", "authenticated_at": authenticated_at or "$$NOW"}
        fields |= {"expires_at": self._expiry(since)}
        document = await self._sessions.find_one_and_update(
            {"_id": secrets.token_urlsafe(16)}, [{"$set": fields}], upsert=True
        )
        return self._session(document or {})  # an upsert always has a result

    async def rotate(self, session_id: str, counter: int) -> Session:
        """Exchange the token with this counter for its successor.

        Of any number of callers with one token exactly one moves the counter; the others receive the same successor
        within the grace period, which is measured from that rotation. After TokenReused the session must be ended.
        Raises SessionOver or TokenReused.
        """
        moved = await self._sessions.find_one_and_update(
            {"_id": session_id, "counter": counter, **ROTATABLE},
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
            return self._session(moved)
        return await self._already_rotated(session_id, counter)

    async def require_active(self, session_id: str, user_id: str, generation: int | None = None) -> datetime:
        """Require that a session of this user is active.

        And of this generation, as part of a transaction.

        Writes to the session, so that a concurrent end of it conflicts with the transaction. Returns when it was
        opened. Raises SessionOver.
        """
        query: Document = {"_id": session_id, "user_id": user_id, **ACTIVE}
        if generation is not None:
            query["generation"] = generation
        # Another value each time, which succeeds whatever was there.
        document = await self._sessions.find_one_and_update(query, {"$set": {"touched": ObjectId()}})
        created_at: datetime | None = document.get("created_at") if document else None
        if not isinstance(created_at, datetime):
            raise SessionOver
        return created_at

    async def carry_over(self, session_id: str, user: User) -> None:
        """Let an active session continue in the next generation.

        As part of the transaction that starts it.

        Raises SessionOver.
        """
        query: Document = {"_id": session_id, "user_id": user.id, **ACTIVE, "generation": user.generation}
        if not await self._sessions.update_one(query, {"$set": {"generation": user.generation + 1}}):
            raise SessionOver

    async def active(self, user_id: str) -> list[ActiveSession]:
        """Return the active sessions of a user, newest first.

        Damaged ones are left out, since they cannot be continued.
        """
        query = {"user_id": user_id, **INDEXED}
        found = await self._sessions.find(query, sort="created_at", direction=DESCENDING, limit=LIST_LENGTH)
        return [
            ActiveSession(*(document[name] for name in ("_id", "created_at", "refreshed_at", "address", "user_agent")))
            for document in found
            if not self._damaged(document)
        ]

    async def start_end(self, session_id: str, user_id: str) -> bool:
        """Mark a session of this user as ending.

        As part of a transaction. Returns whether it was active.

        It can no longer be continued. `end` must follow: the place of an end in the feed is taken when it is written,
        but a transaction shows it when it commits, which may be too late for those who follow.
        """
        query = {"_id": session_id, "user_id": user_id, **UNEXPIRED}
        return await self._sessions.update_one(query, {"$set": {"ending": True}})

    async def end(self, session_id: str) -> bool:
        """End a session and return whether it was not ended before.

        Also one that has expired: its document may have been changed, and its access token still be valid.
        """
        return await self._sessions.update_one({"_id": session_id, **NOT_ENDED}, END)

    async def with_unfinished_end(self) -> list[tuple[str, str | None]]:
        """Return a page of sessions, and their users, whose end was started but not finished."""
        query = {"ending": True, "_id": {"$type": "string"}}  # tokens have no other ids
        found = await self._sessions.find(query, {"user_id": 1}, limit=INTERRUPTED_PAGE)
        return [(one["_id"], one["user_id"] if is_text(one.get("user_id")) else None) for one in found]

    async def end_all(self, user_id: str, generation: int) -> list[str]:
        """End the user's sessions of earlier generations, also those whose generation is missing or not a number.

        Returns the ids of ended sessions, at most a page.
        """
        earlier = {"user_id": user_id, "generation": {"$not": {"$gte": generation}}}
        await self._sessions.update_many({**earlier, **NOT_ENDED}, END)
        query = {"user_id": user_id, "ended": {"$type": "timestamp"}, "_id": {"$type": "string"}}
        return [document["_id"] for document in await self._sessions.find(query, {"_id": 1}, limit=FEED_PAGE)]

    async def end_surplus(self, user_id: str) -> list[str]:
        """End the sessions that a user has beyond the limit.

        They are those that were refreshed longest ago.

        Returns their ids, at most a page.
        """
        query = {"user_id": user_id, **INDEXED}
        surplus = await self._sessions.find(
            query, {"_id": 1}, sort="refreshed_at", direction=DESCENDING, skip=self._per_user, limit=LIST_LENGTH
        )
        ids = [document["_id"] for document in surplus]
        if ids:
            await self._sessions.update_many({"_id": {"$in": ids}, "ended": None}, END)
        return ids

    async def end_key(self, kid: str) -> None:
        """Put a dropped signing key into the feed.

        All workers hear of it with the same promise as of a session. Not as part of a transaction, since its place is
        taken when it is written. Once more does not move the place.
        """
        with suppress(DuplicateKeyError):  # it is there
            await self._sessions.find_one_and_update({"_id": f"{KEY_PREFIX}{kid}", **NOT_ENDED}, END, upsert=True)

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
        found, now = await self._feed.find(
            {"ended": {"$gte": since}}, {"ended": 1}, sort="ended", limit=FEED_PAGE, proven=proven
        )
        page: list[tuple[Timestamp, str]] = []
        start = since
        for document in found:
            ended = document["ended"]
            if not isinstance(ended, Timestamp):  # a list of them matches, too
                self._sessions.report(_name(document), "its end is not a timestamp")
            elif ended > now:
                # No end that was written has such a place. Following it would skip all later ends.
                self._sessions.report(_name(document), "its end lies in the future")
                return page  # the places of all others come before
            else:
                since = max(since, ended)
            page.append((since, str(document["_id"])))
        if len(page) == FEED_PAGE and since == start:  # or the next page would be the same
            raise OwnError("sessions: the ends of too many documents are not timestamps")
        return page

    async def _already_rotated(self, session_id: str, counter: int) -> Session:
        # Proven, because an isolated primary would continue a session that was ended elsewhere.
        document = await self._sessions.find_one_proven({"_id": session_id}, WITH_SERVER_TIME)
        if document is None or document.get("ended") is not None or self._damaged(document):
            raise SessionOver
        if document["expires_at"] <= document["now"]:
            raise SessionOver
        rotations_ago: int = document["counter"] - counter
        rotated: list[datetime] = document["rotations"]
        if rotations_ago <= 0:  # newer than the database, which must have been restored from a backup
            raise SessionOver
        if rotations_ago <= len(rotated) and document["now"] - rotated[rotations_ago - 1] <= self._grace:
            return self._session({**document, "counter": counter + 1})
        raise TokenReused(document["user_id"])

    def _session(self, document: Document) -> Session:
        """Read a document. Raises SessionOver if it is damaged."""
        if self._damaged(document):
            raise SessionOver
        return Session(
            id=document["_id"],
            user_id=document["user_id"],
            access=Access(document["access"]),
            counter=int(document["counter"]),
            expires_at=document["expires_at"],
            authenticated_at=document.get("authenticated_at"),
            amr=tuple(document.get("amr", ())),
        )

    def _damaged(self, document: Document) -> bool:
        damaged = damage(document, FIELDS, OPTIONAL)
        if damaged:
            self._sessions.report(_name(document), f"the session counts as ended because of {', '.join(damaged)}")
        return bool(damaged)

    def _expiry(self, created_at: datetime | str) -> dict[str, Any]:
        idle, absolute = {"$add": ["$$NOW", self._idle]}, {"$add": [created_at, self._absolute]}
        return {"$min": [idle, absolute]}


def _name(document: Document) -> str:
    """Return the id for the log, if it is one of ours."""
    session_id = document["_id"]
    if is_text(session_id) and SESSION_ID.fullmatch(session_id):
        return str(session_id)
    return f"with an _id of the type {type(session_id).__name__}"
