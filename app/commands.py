"""`sanic app exec create-admin` and friends: administration where the service runs.

Exit codes: 0 done, 1 refused or not possible with the reason on standard error, 2 wrong usage.
"""

import getpass
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn

from pymongo.errors import PyMongoError

from app.context import App, Context
from app.database.failures import trouble
from app.http.problems import Problem
from app.logs import audit
from app.models.users import Access, LastAdmin, User, UsernameTaken
from app.schemas.users import USERNAME

PAGE = 500
BY = "command line"

Services = Callable[[], AbstractAsyncContextManager[Context]]


class Refused(Exception):
    """The command cannot be carried out; the message says why."""


class Commands:
    """What an administrator does without a token. `services` opens stores and services for one command."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create_admin(self, username: str = "") -> None:
        """Create an administrator; the password is asked for, or read from standard input."""
        _required(username)
        if not re.fullmatch(USERNAME, username):
            _exit("a username has 3 to 64 ASCII letters, digits, dots, underscores and hyphens")
        password = _password()
        async with self._opened() as ctx:
            ctx.passwords.check(password, username)
            user = User.new(username, await ctx.passwords.hash(password), Access.ADMIN)
            try:
                await ctx.users.add(user)
            except UsernameTaken:
                raise Refused(f"another user is named {username}") from None
            audit("registered", user_id=user.id, access="admin", by=BY)
            print(f"{username} is an administrator, with the id {user.id}")

    async def disable_user(self, username: str = "") -> None:
        """Disable a user: all sessions end, and no login is possible until the user is enabled."""
        _required(username)
        async with self._opened() as ctx:
            user = await _changed(ctx, username, disabled=True)
            print(f"{user.username} is disabled")

    async def enable_user(self, username: str = "") -> None:
        """Enable a user that was disabled."""
        _required(username)
        async with self._opened() as ctx:
            user = await _changed(ctx, username, disabled=False)
            print(f"{user.username} is enabled")

    async def end_sessions(self, username: str = "") -> None:
        """End all sessions of a user."""
        _required(username)
        async with self._opened() as ctx:
            user = await _user(ctx, username)
            await ctx.logins.log_out_everywhere(user.id, by=BY)
            print(f"all sessions of {user.username} are over")

    async def list_users(self) -> None:
        """List all users: id, access, state and name, separated by tabs."""
        async with self._opened() as ctx:
            after = None
            while page := await ctx.users.page(after, PAGE):
                for user in page:
                    state = "disabled" if user.disabled else "enabled"
                    print(user.id, user.access.name.lower(), state, user.username, sep="\t")
                after = page[-1].id

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Context]:
        try:
            async with self._services() as ctx:
                yield ctx
        except Refused as refused:
            _exit(str(refused))
        except Problem as problem:
            rules = [f"{error['field']} {error['message']}" for error in problem.errors or []]
            _exit("; ".join(rules) or problem.detail)
        except PyMongoError as error:
            _exit(f"the database cannot serve ({trouble(error)}): is MONGO_URI right?")


def register(app: App, services: Services) -> None:
    """Put the commands on the app."""
    commands = Commands(services)
    for command in (
        commands.create_admin,
        commands.disable_user,
        commands.enable_user,
        commands.end_sessions,
        commands.list_users,
    ):
        app.command(name=command.__name__.replace("_", "-"))(command)


async def _user(ctx: Context, username: str) -> User:
    user = await ctx.users.by_name(username)
    if user is None:
        raise Refused(f"there is no user named {username}")
    return user


async def _changed(ctx: Context, username: str, *, disabled: bool) -> User:
    async def change(user: User) -> User:
        # Whoever is disabled already may have sessions left from a first try; whoever is enabled loses none.
        return await ctx.logins.change(user, by=BY, disabled=disabled) if user.disabled or disabled else user

    user = await _user(ctx, username)
    try:
        changed = await ctx.logins.insist(user.id, change)
    except LastAdmin:
        raise Refused(f"{user.username} is the last administrator") from None
    if changed is None:
        raise Refused(f"{user.username} has just been deleted")
    return changed


def _required(username: str) -> None:
    if not username:
        _exit("--username=... is needed", code=2)


def _password() -> str:
    """Ask for a password at a terminal, else read a line; an argument would show in the list of processes."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        _exit("the passwords differ")
    return password


def _exit(reason: str, *, code: int = 1) -> NoReturn:
    print(reason, file=sys.stderr)
    raise SystemExit(code)
