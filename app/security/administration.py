"""The use cases of administrators: list, change and delete users, end their sessions."""

from dataclasses import dataclass

from app.logs import audit
from app.models.users import Access, User, Users
from app.security.generations import Generations
from app.security.passwords import Passwords


class NotAdministrator(Exception):
    """The actor is not an administrator, or no longer one."""


class UserNotFound(Exception):
    """No user has this id."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who administers: the user with this id, or the command line."""

    user_id: str | None

    @property
    def name(self) -> str:
        """The actor's name in the audit trail."""
        return self.user_id or "command line"


COMMAND_LINE = Actor(None)


class Administration:
    """What administrators do with the accounts of others.

    The actor's rank is checked again before each try.
    """

    def __init__(self, users: Users, passwords: Passwords, generations: Generations) -> None:
        self._users = users
        self._passwords = passwords
        self._generations = generations

    async def require_administrator(self, user_id: str) -> None:
        """Require that a user is an administrator at this moment.

        Raises NotAdministrator.
        """
        user = await self._users.by_id(user_id)
        if user is None or not user.has_access(Access.ADMIN):
            raise NotAdministrator

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
        user = User.new(username, await self._passwords.hash(password), Access.ADMIN)
        await self._users.add(user)
        audit("registered", user_id=user.id, access="admin", by=COMMAND_LINE.name)
        return user

    async def change(
        self, user_id: str, actor: Actor, *, access: Access | None = None, disabled: bool | None = None
    ) -> User:
        """Change a user and end all its sessions; without changes, only end them.

        Raises NotAdministrator, UserNotFound or LastAdmin.
        """

        async def change(user: User) -> User:
            await self._authorize(actor)
            return await self._generations.change(user, by=actor.name, access=access, disabled=disabled)

        return _found(await self._generations.retry_on_conflict(user_id, change))

    async def delete(self, user_id: str, actor: Actor) -> None:
        """Delete a user and end all its sessions.

        Raises NotAdministrator, UserNotFound or LastAdmin.
        """

        async def delete(user: User) -> User:
            await self._authorize(actor)
            return await self._generations.delete(user, by=actor.name)

        _found(await self._generations.retry_on_conflict(user_id, delete))

    async def _authorize(self, actor: Actor) -> None:
        if actor.user_id is not None:
            await self.require_administrator(actor.user_id)


def _found(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
