"""The outbox: mails to be sent. A row says what to send, and the secret in a mail is made when it is sent.

A row is written in the transaction of what it tells of. Workers claim rows by a lease, so each mail is sent at least
once (transactional outbox). All times are the database's own ($$NOW).
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import ObjectId
from pymongo import ASCENDING, IndexModel

from app.database.collection import Collection, Document
from app.models.pipelines import later, literals, milliseconds
from app.models.users import Email, User

LEASE = timedelta(seconds=45)  # longer than one attempt to send may take
NOTICE_PAUSE = timedelta(hours=1)  # between two notices of one kind to one account
KEEP_DEAD = timedelta(days=7)
COUNTED = 10_000  # at most, for the metrics

INDEXES = [
    IndexModel([("priority", ASCENDING), ("due", ASCENDING)]),
    IndexModel([("dead", ASCENDING), ("since", ASCENDING), ("due", ASCENDING)]),  # of the metrics, each second
    IndexModel("user_id"),
    IndexModel("remove_at", expireAfterSeconds=0),
]
DUE = {"due": {"$type": "date"}, "$expr": {"$lte": ["$due", "$$NOW"]}}


class Kind(StrEnum):
    """What a mail is.

    It decides how long it is of use, and its priority.
    """

    NOTICE = "notice"
    CODE = "code"
    RESET = "reset"


LIFETIMES = {Kind.NOTICE: timedelta(hours=24), Kind.CODE: timedelta(minutes=10), Kind.RESET: timedelta(minutes=30)}
PRIORITIES = {Kind.NOTICE: 0, Kind.CODE: 1, Kind.RESET: 1}  # notices come first


@dataclass(frozen=True, slots=True)
class Mail:
    """A claimed row.

    A reset has no user and no address yet, only the key of the address that was typed. `count` is the number of equal
    events that a notice tells of.
    """

    id: str
    number: ObjectId  # another one each time that the row begins to wait
    kind: Kind
    message: str
    user_id: str
    address: str
    key: str
    facts: Document
    count: int
    attempts: int
    created_at: datetime
    claim: ObjectId
    expired: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many rows wait and are dead, and for how many seconds the oldest could have been sent."""

    waiting: int
    dead: int
    oldest_seconds: float


class Outbox:
    """The collection of mails to be sent."""

    def __init__(self, collection: Collection) -> None:
        self._mails = collection
        self.added = asyncio.Event()  # something was written by this worker

    async def add_notice(self, message: str, user: User, email: Email, facts: Document) -> None:
        """Tell a user of an event.

        An equal event within NOTICE_PAUSE is told of later, together with others.
        """
        paused = {"$add": ["$sent_at", milliseconds(NOTICE_PAUSE)]}
        due = {"$ifNull": ["$due", {"$cond": [{"$gt": [paused, "$$NOW"]}, paused, "$$NOW"]}]}
        given = {"message": message, "user_id": user.id, "address": email.address, "key": email.key, "facts": facts}
        count = {"$add": [{"$ifNull": ["$count", 0]}, 1]}
        await self._add(f"{message} {user.id} {email.key}", Kind.NOTICE, given, {"due": due, "count": count})

    async def add_code(self, user: User, email: Email) -> None:
        """Send a code to an address that a user claims.

        One that waits is replaced.
        """
        given = {"message": "verification", "user_id": user.id, "address": email.address, "key": email.key}
        fresh = {"due": "$$NOW", "attempts": 0, "claim": None, "count": 1}
        await self._add(f"code {user.id}", Kind.CODE, {**given, "facts": {}}, fresh)

    async def add_reset(self, key: str) -> None:
        """Send a reset to the user who has verified this address, if any.

        The same write whether there is such a user or not (user enumeration). Rows are named by the address, so that
        any number of requests for one address is one row.
        """
        given = {"message": "reset", "user_id": "", "address": "", "key": key, "facts": {}}
        waiting = {"due": {"$ifNull": ["$due", "$$NOW"]}, "count": 1}
        await self._add(f"reset {hashlib.sha256(key.encode()).hexdigest()}", Kind.RESET, given, waiting)

    async def claim(self) -> Mail | None:
        """Lease the next row that is due, or return None."""
        document = await self._mails.find_one_and_update(
            DUE,
            [
                {
                    "$set": {
                        "due": later(LEASE),
                        "claim": ObjectId(),
                        "attempts": {"$add": ["$attempts", 1]},
                        "expired": {"$lte": ["$expires_at", "$$NOW"]},
                    }
                }
            ],
            sort=[("priority", ASCENDING), ("due", ASCENDING)],
        )
        return _read(document) if document else None

    async def sent(self, mail: Mail) -> None:
        """Remove a row that was sent.

        A notice stays for NOTICE_PAUSE, or until it was told of events that came meanwhile.
        """
        if mail.kind is not Kind.NOTICE:
            return await self.drop(mail)
        left = {"$subtract": ["$count", mail.count]}
        after_pause = later(NOTICE_PAUSE)
        await self._mails.update_one(
            {"_id": mail.id, "claim": mail.claim},
            [
                {"$set": {"count": left, "sent_at": "$$NOW", "attempts": 0, "claim": None}},
                {
                    "$set": {
                        "due": {"$cond": [{"$gt": ["$count", 0]}, after_pause, None]},
                        "since": after_pause,
                        "remove_at": {"$cond": [{"$gt": ["$count", 0]}, None, after_pause]},
                    }
                },
            ],
        )
        return None

    async def drop(self, mail: Mail) -> None:
        """Remove a row of which nothing is to be sent, unless it was written again meanwhile."""
        await self._mails.delete_one({"_id": mail.id, "claim": mail.claim})

    async def retry(self, mail: Mail, pause: timedelta) -> None:
        """Send a row again after a pause."""
        await self._mails.update_one(
            {"_id": mail.id, "claim": mail.claim},
            [{"$set": {"due": later(pause)}}],
        )

    async def postpone(self, mail: Mail, pause: timedelta) -> None:
        """Send a row later for which nothing was done."""
        fields = {"due": later(pause), "attempts": {"$subtract": ["$attempts", 1]}}
        await self._mails.update_one({"_id": mail.id, "claim": mail.claim}, [{"$set": fields}])

    async def bury(self, mail: Mail, reason: str) -> None:
        """Keep a row that cannot be sent for a while (dead letter)."""
        gone = {"dead": {"$literal": reason}, "due": None, "remove_at": later(KEEP_DEAD)}
        await self._mails.update_one({"_id": mail.id, "claim": mail.claim}, [{"$set": gone}])

    async def backlog(self) -> Backlog:
        """Return how much waits."""
        waiting = {"due": {"$type": "date"}, "dead": None}
        age = {"age": {"$max": [0, {"$subtract": ["$$NOW", "$since"]}]}}
        oldest = await self._mails.find(waiting, age, sort="since", limit=1)
        return Backlog(
            waiting=await self._mails.count(waiting, limit=COUNTED),
            dead=await self._mails.count({"dead": {"$type": "string"}}, limit=COUNTED),
            oldest_seconds=oldest[0]["age"] / 1000 if oldest else 0.0,
        )

    async def remove_user(self, user_id: str) -> None:
        """Remove the rows of a user, except notices, of which one tells of the deletion."""
        await self._mails.delete_many({"user_id": user_id, "kind": {"$ne": Kind.NOTICE}})

    async def _add(self, id_: str, kind: Kind, given: Document, computed: Document) -> None:
        fields = literals({**given, "kind": kind})
        fields |= {"priority": PRIORITIES[kind], "dead": None, "remove_at": None}
        fields |= {"created_at": "$$NOW", "expires_at": later(LIFETIMES[kind])}
        waits = {"$eq": [{"$type": "$due"}, "date"]}
        fields |= {"since": {"$cond": [waits, "$since", computed["due"]]}}
        fields |= {"number": {"$cond": [waits, "$number", ObjectId()]}}
        fields |= {"attempts": {"$ifNull": ["$attempts", 0]}, **computed}
        await self._mails.find_one_and_update({"_id": id_}, [{"$set": fields}], upsert=True)
        self.added.set()


def _read(document: Document) -> Mail:
    names = ("message", "user_id", "address", "key", "facts", "count", "attempts", "claim", "expired", "number")
    fields: dict[str, Any] = {name: document[name] for name in names}
    created_at: datetime = document.get("created_at", datetime.now(UTC))
    return Mail(id=document["_id"], kind=Kind(document["kind"]), created_at=created_at, **fields)
