"""Change or delete a user and end all its sessions, in two steps that survive the death of a worker.

The first step starts a generation: one write on the user, after which no session of an earlier generation can be
opened. The second step ends the sessions, which tells every worker, and removes a deleted user's documents.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar, Unpack

from app.background import shielded
from app.logs import audit
from app.models.sessions import Sessions
from app.models.users import ChangedMeanwhile, Changes, User, Users
from app.security.revocations import Revocations

T = TypeVar("T")


class UserDocuments(Protocol):
    """A store with documents of users."""

    async def remove_user(self, user_id: str) -> None:
        """Remove all documents of a user, or their personal data.

        May be repeated.
        """


class Generations:
    """Starts generations and finishes them.

    `stores` lists every store with documents of users.
    """

    def __init__(
        self, users: Users, sessions: Sessions, revocations: Revocations, stores: Sequence[UserDocuments]
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._revocations = revocations
        self._stores = stores

    @shielded
    async def change(self, user: User, *, by: str | None = None, **changes: Unpack[Changes]) -> User:
        """Change a user and end all its sessions; without changes, only end them.

        Returns the changed user. `by` is the actor for the audit trail, if it is not the user. Raises ChangedMeanwhile
        or LastAdmin.
        """
        changed = await self._users.start_generation(user, **changes)
        _audit_change(user, changed, by)
        await self._finish(changed)
        return changed

    @shielded
    async def delete(self, user: User, *, by: str | None = None) -> User:
        """Delete a user and end all its sessions.

        Raises ChangedMeanwhile or LastAdmin.
        """
        deleted = await self._users.start_deletion(user)
        _audit("deleted", deleted, by)
        await self._finish(deleted)
        return deleted

    async def retry_on_conflict(self, user_id: str, change: Callable[[User], Awaitable[T]]) -> T | None:
        """Change a user, again whenever another change came first.

        Returns None if there is no such user. Each try asks the database, so the request's time budget limits the
        tries. Raises what `change` raises, except ChangedMeanwhile.
        """
        while user := await self._users.by_id(user_id):
            with suppress(ChangedMeanwhile):
                return await change(user)
        return None

    async def finish_interrupted(self) -> None:
        """Finish generations whose worker died after it had started them."""
        for user in await self._users.with_unfinished_generation():
            await self._finish(user)

    async def _finish(self, user: User) -> None:
        for session_id in await self._sessions.end_all(user.id, user.generation):
            self._revocations.add(session_id)
        if user.deleted:
            for store in self._stores:
                await store.remove_user(user.id)
        await self._users.finish_generation(user)


def _audit_change(before: User, after: User, by: str | None) -> None:
    if before.password_hash != after.password_hash:
        _audit("password_changed", after, by)
    if before.access != after.access:
        _audit("access_changed", after, by, access=after.access.name.lower())
    if before.disabled != after.disabled:
        _audit("disabled" if after.disabled else "enabled", after, by)
    if (before.password_hash, before.access, before.disabled) == (after.password_hash, after.access, after.disabled):
        _audit("logged_out_everywhere", after, by)


def _audit(event: str, user: User, by: str | None, **facts: Any) -> None:
    audit(event, user_id=user.id, **facts, **({"by": by} if by else {}))
