"""Change or delete a user and end all its sessions, in two steps that survive the death of a worker.

The first step starts a generation: one write on the user, after which no session of an earlier generation can be
opened. The second step ends the sessions, which tells every worker, and removes a deleted user's documents.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Unpack

from pymongo.errors import PyMongoError

from app.background import shielded
from app.database.failures import OwnError, summary
from app.database.transactions import Transactions
from app.logs.audit import audit
from app.models.sessions import Sessions
from app.models.users import Changes, User, Users
from app.security.notices import Notices
from app.security.revocations import Revocations


class UserDocuments(Protocol):
    """A store with documents of users."""

    async def remove_user(self, user_id: str) -> None:
        """Remove all documents of a user, or their personal data.

        May be repeated.
        """


Right = Callable[[User], Awaitable[None]]


async def no_right_needed(_: User) -> None:
    """Allow the change: its actor is the command line."""


class EndingsUnfinished(OwnError):
    """Sessions of some users could not be ended; the next attempt follows."""


class Generations:
    """Starts generations and finishes them.

    A `right` is part of the transaction that starts a generation: it gets the user as it was, raises if the actor may
    not change it, and writes to the documents that it rests on. So an actor whose session or rank ends meanwhile
    changes nothing (time of check, time of use). The sessions are ended after the transaction, because their places in
    the feed must be taken when they become visible.
    `stores` lists every store with documents of users.
    """

    def __init__(
        self,
        users: Users,
        sessions: Sessions,
        revocations: Revocations,
        transactions: Transactions,
        stores: Sequence[UserDocuments],
        notices: Notices,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._revocations = revocations
        self._transactions = transactions
        self._stores = stores
        self._notices = notices

    @shielded
    async def change(
        self,
        user_id: str,
        *,
        right: Right,
        by: str | None = None,
        tell: str | None = None,
        only_if: Callable[[User], bool] = lambda _: True,
        **changes: Unpack[Changes],
    ) -> User | None:
        """Change a user and end all its sessions.

        Without changes, only the sessions end.

        Returns the user, which stays as it is where `only_if` is false, or None if there is no such user. `by` is the
        actor for the audit trail, if it is not the user, and `tell` names the notice to the user. Raises what `right`
        raises, and LastAdmin.
        """

        async def start() -> tuple[User | None, bool]:
            user = await self._users.by_id(user_id)
            if user is None:
                return None, False
            start_it = only_if(user)
            changed = await self._users.start_generation(user, **changes) if start_it else user
            await right(user)
            await self._notices.tell(tell, user)
            return changed, start_it

        user, changed = await self._transactions.run(start)
        if user and changed:
            _audit_change(user, by, changes)
            await self._finish(user)
        return user

    @shielded
    async def delete(
        self, user_id: str, *, right: Right, by: str | None = None, tell: str | None = None
    ) -> User | None:
        """Delete a user and end all its sessions.

        Returns the user, or None if there is no such user. Raises what `right` raises, and LastAdmin.
        """

        async def start() -> User | None:
            user = await self._users.by_id(user_id)
            if user is None:
                return None
            deleted = await self._users.start_deletion(user)
            await right(user)
            await self._notices.tell(tell, user)
            return deleted

        deleted = await self._transactions.run(start)
        if deleted:
            _audit("deleted", deleted, by)
            await self._finish(deleted)
        return deleted

    async def finish_interrupted(self) -> None:
        """Finish generations whose worker died after it had started them.

        The failure of one user does not stop the others'. Raises pymongo's errors if there is no list of users, and
        EndingsUnfinished once all were tried.
        """
        users = await self._users.with_unfinished_generation()
        failures = [error for error in await asyncio.gather(*map(self._try_to_finish, users)) if error]
        if failures:
            raise EndingsUnfinished(f"{len(failures)} of {len(users)} users: {summary(failures[0])}") from failures[0]

    async def _try_to_finish(self, user: User) -> PyMongoError | None:
        try:
            await self._finish(user)
        except PyMongoError as error:
            return error
        return None

    async def _finish(self, user: User) -> None:
        for session_id in await self._sessions.end_all(user.id, user.generation):
            self._revocations.add(session_id)
        if user.deleted:
            for store in self._stores:
                await store.remove_user(user.id)
        await self._users.finish_generation(user)


def _audit_change(user: User, by: str | None, changes: Changes) -> None:
    if changes.get("password"):
        _audit("password_changed", user, by)
    if changes.get("access") is not None:
        _audit("access_changed", user, by, access=user.access.name.lower())
    if changes.get("disabled") is not None:
        _audit("disabled" if user.disabled else "enabled", user, by)
    # The use cases of second factors log theirs, with what they know.
    if all(value is None for value in changes.values()):
        _audit("logged_out_everywhere", user, by)


def _audit(event: str, user: User, by: str | None, **facts: Any) -> None:
    audit(event, user_id=user.id, **facts, **({"by": by} if by else {}))
