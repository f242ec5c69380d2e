"""The use cases of administrators: list, change and delete users, end their sessions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Unpack

from app.logs.audit import audit
from app.models.sessions import Sessions
from app.models.users import Access, Changes, User, Users
from app.security.generations import Generations, Right, no_right_needed
from app.security.passwords import Passwords
from app.security.turns import Caller


class NotAdministrator(Exception):
    """The actor is not an administrator, or no longer one."""


class UserNotFound(Exception):
    """No user has this id."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers: a user in a session, or the command line."""

    user_id: str
    session_id: str

    @property
    def name(self) -> str:
        """The actor's name in the audit trail."""
        return self.user_id


COMMAND_LINE = Actor("command line", "")


class Administration:
    """What administrators do with accounts.

    Each change proves the actor's rank and session in its transaction.
    """

    def __init__(self, users: Users, sessions: Sessions, passwords: Passwords, generations: Generations) -> None:
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._generations = generations

    async def require_administrator(self, user_id: str) -> None:
        """Require that a user is an administrator at this moment.

        Raises NotAdministrator.
        """
        user = await self._users.by_id_proven(user_id)
        if user is None or not user.has_access(Access.ADMIN):
            raise NotAdministrator

    async def require_right(self, user_id: str, actor: Actor) -> User:
        """Return a user whom an actor may administer, as part of a transaction.

        Raises NotAdministrator, SessionOver or UserNotFound.
        """
        user = _found(await self._users.lock(user_id))
        await self._right(actor)(user)
        return user

    async def page(self, after: str | None, limit: int) -> list[User]:
        """Return users in the order of their ids, after a given id."""
        return await self._users.page(after, limit)

    async def get(self, user_id: str) -> User:
        """Return a user. Raises UserNotFound."""
        return _found(await self._users.by_id(user_id))

    async def find(self, username: str) -> User:
        """Return the user with this name. Raises UserNotFound."""
        return _found(await self._users.by_name(username))

    async def create_admin(self, username: str, password: str) -> User:
        """Add an administrator from the command line.

        Raises WeakPassword, HashingBusy or UsernameTaken.
        """
        self._passwords.check_policy(password, username)
        user = User.new(username, await self._passwords.hash_new(password, Caller(), username), Access.ADMIN)
        await self._users.add(user)
        audit("registered", user_id=user.id, access="admin", by=COMMAND_LINE.name)
        return user

    async def set_password(self, user: User, password: str) -> None:
        """Set the password of a user from the command line, and end all sessions.

        Raises WeakPassword, HashingBusy or UserNotFound.
        """
        self._passwords.check_policy(password, user.username)
        new_hash = await self._passwords.hash_new(password, Caller(), user.username)
        _found(
            await self._generations.change(
                user.id, right=no_right_needed, by=COMMAND_LINE.name, tell="password_changed", password=new_hash
            )
        )

    async def change(
        self, user_id: str, actor: Actor, *, access: Access | None = None, disabled: bool | None = None
    ) -> User:
        """Change a user and end all its sessions.

        Without changes, only the sessions end.

        Raises NotAdministrator, SessionOver, UserNotFound or LastAdmin.
        """
        right = self._right(actor)
        return _found(
            await self._generations.change(user_id, right=right, by=actor.name, access=access, disabled=disabled)
        )

    async def change_together(
        self, user_id: str, actor: Actor, change: Callable[[User], Awaitable[None]], **changes: Unpack[Changes]
    ) -> User:
        """Change a user and end all its sessions, in one transaction with another change.

        Raises NotAdministrator, SessionOver, UserNotFound or LastAdmin.
        """
        right = self._right(actor)

        async def both(user: User) -> None:
            await right(user)
            await change(user)

        return _found(await self._generations.change(user_id, right=both, by=actor.name, **changes))

    async def enable(self, user_id: str, actor: Actor) -> User:
        """Enable a user; one that is enabled keeps its sessions.

        Raises NotAdministrator, SessionOver or UserNotFound.
        """
        right = self._right(actor)
        return _found(
            await self._generations.change(
                user_id, right=right, by=actor.name, only_if=lambda user: user.disabled, disabled=False
            )
        )

    async def delete(self, user_id: str, actor: Actor) -> None:
        """Delete a user and end all its sessions.

        Raises NotAdministrator, SessionOver, UserNotFound or LastAdmin.
        """
        right = self._right(actor)
        _found(await self._generations.delete(user_id, right=right, by=actor.name, tell="account_deleted"))

    def _right(self, actor: Actor) -> Right:
        """Return the right of an actor: an active session and the rank of an administrator, or the command line."""
        if actor is COMMAND_LINE:
            return no_right_needed

        async def right(changed: User) -> None:
            # Who changes itself has written to its own document already.
            user = changed if actor.user_id == changed.id else await self._users.lock(actor.user_id)
            if user is None or not user.has_access(Access.ADMIN):
                raise NotAdministrator
            await self._sessions.require_active(actor.session_id, user.id, user.generation)

        return right


def _found(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
