"""Seeded defects: changes of the service's code that the checker must find."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from bson import Timestamp

from app.database.collection import Collection, Document, Filter, Update
from app.http.client import Client
from app.models.sessions import ACTIVE, Session, SessionOver, Sessions
from app.models.users import User, Users
from app.schemas.auth import Tokens
from app.security.accounts import Accounts
from app.security.administration import Administration
from app.security.generations import Generations, Right, no_right_needed
from app.security.logins import BY_PASSWORD, Logins, device
from app.security.revocations import Revocations


def administrators_without_right() -> None:
    """Check the rank of an administrator before the change, but not as part of it."""

    def right(_: Administration, __: Any) -> Right:
        return no_right_needed

    Administration._right = right  # type: ignore[assignment, method-assign]


def own_changes_without_right() -> None:
    """Check the session of a user before the change, but not as part of it."""

    def right(_: Accounts, __: Any) -> Right:
        return no_right_needed

    Accounts._own = right  # type: ignore[assignment, method-assign]


def rights_that_are_only_read() -> None:
    """Read what a right rests on, without a write to it (write skew)."""

    async def lock(self: Users, user_id: str) -> User | None:
        return await self.by_id(user_id)

    async def require_active(self: Sessions, session_id: str, user_id: str, generation: int | None = None) -> datetime:
        query: Document = {"_id": session_id, "user_id": user_id, **ACTIVE}
        if generation is not None:
            query["generation"] = generation
        document = await self._sessions.find_one(query)
        if not document:
            raise SessionOver
        return document["created_at"]  # type: ignore[no-any-return]

    Users.lock = lock  # type: ignore[method-assign]
    Sessions.require_active = require_active  # type: ignore[method-assign]


def refresh_without_counter() -> None:
    """Rotate a session whatever the counter of the token is."""
    original = Collection.find_one_and_update

    async def find_one_and_update(
        self: Collection, query: Filter, update: Update, *, upsert: bool = False, sort: Any = None
    ) -> Document | None:
        query = {name: value for name, value in query.items() if name != "counter"}
        return await original(self, query, update, upsert=upsert, sort=sort)

    Collection.find_one_and_update = find_one_and_update  # type: ignore[method-assign]


def extended_grace() -> None:
    """Start the grace period again with each use of an old token."""
    original = Sessions._already_rotated

    async def already_rotated(self: Sessions, session_id: str, counter: int) -> Session:
        session = await original(self, session_id, counter)
        now = {"$map": {"input": "$rotations", "in": "$$NOW"}}
        await self._sessions.update_one({"_id": session_id}, [{"$set": {"rotations": now}}])
        return session

    Sessions._already_rotated = already_rotated  # type: ignore[method-assign]


def grace_of_ended_sessions() -> None:
    """Answer an old token within its grace period although the session has ended."""
    original = Collection.find_one_proven

    async def find_one_proven(self: Collection, query: Filter, projection: Any = None) -> Document | None:
        document = await original(self, query, projection)
        if document and document.pop("ended", None):
            document["expires_at"] = document["now"] + timedelta(days=1)
        return document

    Collection.find_one_proven = find_one_proven  # type: ignore[method-assign]


def login_without_second_look() -> None:
    """Open a session without a look at whether the user was changed meanwhile."""

    async def open_session(self: Logins, user: User, client: Client, **_: Any) -> Tokens:
        return self.issue(await self._sessions.open(user, device(client), amr=BY_PASSWORD))

    Logins.open = open_session  # type: ignore[method-assign]


def latest_generation_survives() -> None:
    """End all sessions but those of the latest generation, which concurrent logins open."""
    original = Sessions.end_all

    async def end_all(self: Sessions, user_id: str, generation: int) -> list[str]:
        return await original(self, user_id, generation - 1)

    Sessions.end_all = end_all  # type: ignore[method-assign]


def remembered_before_acknowledged() -> None:
    """Reject the tokens of a session before the database has acknowledged its end."""
    original = Logins.finish_end

    async def end(self: Logins, session_id: str, user_id: str | None) -> None:
        self._revocations.add(session_id)
        await original(self, session_id, user_id)

    Logins.finish_end = end  # type: ignore[method-assign]


def feed_from_the_next_second() -> None:
    """Read the feed from the second after the latest end on."""
    original = Revocations._read

    async def read(self: Revocations, *, proven: bool) -> Timestamp:
        newest = await original(self, proven=proven)
        self._since = Timestamp(newest.time + 1, 0)
        return newest

    Revocations._read = read  # type: ignore[method-assign]


def interrupted_ends_forgotten() -> None:
    """Never finish what a worker could not finish itself."""

    async def finish_interrupted(_: object) -> None:
        return None

    Logins.finish_interrupted = finish_interrupted  # type: ignore[assignment, method-assign]
    Generations.finish_interrupted = finish_interrupted  # type: ignore[assignment, method-assign]


DEFECTS: dict[str, Callable[[], None]] = {
    defect.__name__: defect
    for defect in (
        administrators_without_right,
        own_changes_without_right,
        rights_that_are_only_read,
        refresh_without_counter,
        extended_grace,
        grace_of_ended_sessions,
        login_without_second_look,
        latest_generation_survives,
        remembered_before_acknowledged,
        feed_from_the_next_second,
        interrupted_ends_forgotten,
    )
}
