"""`sanic app exec create-admin` and others: administration on the command line.

Exit codes: 0 done, 1 rejected or impossible with the reason on standard error, 2 wrong usage.
"""

import getpass
import io
import re
import signal
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from pymongo.errors import PyMongoError

from app.context import App, Context
from app.database.failures import summary
from app.mail.errors import MailError
from app.models.users import LastAdmin, User, UsernameTaken
from app.schemas.users import USERNAME
from app.security.administration import COMMAND_LINE, UserNotFound
from app.security.factor_errors import SecondFactorOff
from app.security.key_errors import ChangedMeanwhile, NextKeyTooYoung, UnknownKid
from app.security.passwords import WeakPassword
from app.tokens.key_set import ALGORITHMS
from config import texts

PAGE = 500
UNTYPABLE = ("Cc", "Cs")  # categories: control characters, and surrogates for bytes that are not UTF-8
NO_KEY = "ENCRYPTION_KEY is not set, so no secrets are stored"
LINE_LENGTH = 4096  # characters of standard input; passwords are shorter

if TYPE_CHECKING:
    from app.security.keys import SigningKeys

Services = Callable[[], AbstractAsyncContextManager[Context]]


class Commands:
    """Administration without a token.

    `services` opens stores and services for one command.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create_admin(self, username: str = "") -> None:
        """Create an administrator.

        The password is prompted for, or read from standard input.
        """
        _require(username)
        if not re.fullmatch(USERNAME, username):
            _exit("a username has 3 to 64 ASCII letters, digits, dots, underscores and hyphens")
        password = _read_password()
        async with self._opened(username) as ctx:
            user = await ctx.administration.create_admin(username, password)
            print(f"{username} is an administrator, with the id {user.id}")

    async def set_password(self, username: str = "") -> None:
        """Set the password of a user: all sessions end.

        The password is prompted for, or read from standard input.
        """
        _require(username)
        password = _read_password()
        async with self._opened(username) as ctx:
            user = await ctx.administration.find(username)
            await ctx.administration.set_password(user, password)
            print(f"the password of {user.username} is set, and all sessions have ended")

    async def mail_test(self, to: str = "") -> None:
        """Send a test mail to an address, past the outbox."""
        async with self._opened(to) as ctx:
            if ctx.mail is None:
                _exit("SMTP_URL is not set, so the service sends no mail")
            try:
                await ctx.mail.test(to)
            except MailError as error:
                _exit(f"the mail was not sent: {error}")
            print(f"a mail to {to} was handed over")

    async def rotate_key(self, algorithm: str = "", now: bool = False) -> None:
        """Let the next signing key sign, and publish another next one.

        Make the first keys if there are none.

        The algorithm is JWT_ALGORITHM, or EdDSA while that is HS256. --now does not wait until others know the key.
        """
        async with self._with_keys() as keys:
            algorithm = algorithm or keys.algorithm or ALGORITHMS[0]
            if algorithm not in ALGORITHMS:
                _exit(f"--algorithm is one of {', '.join(ALGORITHMS)}", code=2)
            print(f"the key {await keys.rotate(algorithm, now=now)} signs")

    async def drop_key(self, kid: str = "", now: bool = False) -> None:
        """Refuse all tokens that a key has signed, everywhere.

        The next key signs from then on.

        --now does not wait until others know the next key.
        """
        if not kid:
            _exit("--kid=... is required; /.well-known/jwks.json lists the keys", code=2)
        async with self._with_keys() as keys:
            await keys.drop(kid, now=now)
            print(f"the key {kid} is dropped, and its tokens are refused")

    async def rewrap(self) -> None:
        """Encrypt all stored secrets with the current ENCRYPTION_KEY."""
        async with self._opened() as ctx:
            if ctx.keys is None:
                _exit(NO_KEY)
            both = [await ctx.keys.signing.rewrap(), await ctx.enrolment.rewrap()]
            done, left = (sum(numbers) for numbers in zip(*both, strict=True))
            print(f"{done} secrets were encrypted again, {left} are left under other keys")
            if left:
                _exit("run it again with the keys that are missing in ENCRYPTION_PREVIOUS_KEYS")

    async def reset_factors(self, username: str = "") -> None:
        """Remove the second factors of a user who has lost them: all sessions end.

        Make sure first that it is really the user who asks.
        """
        _require(username)
        async with self._opened(username) as ctx:
            user = await ctx.administration.find(username)
            await ctx.enrolment.reset(user.id, COMMAND_LINE)
            print(f"{user.username} has no second factor, and all sessions have ended")

    async def disable_user(self, username: str = "") -> None:
        """Disable a user.

        All sessions end, and logins are rejected until the user is enabled.
        """
        _require(username)
        async with self._opened(username) as ctx:
            user = await ctx.administration.find(username)
            # Also if the user is disabled: an earlier try may have left sessions.
            await ctx.administration.change(user.id, COMMAND_LINE, disabled=True)
            print(f"{user.username} is disabled")

    async def enable_user(self, username: str = "") -> None:
        """Enable a user that was disabled."""
        _require(username)
        async with self._opened(username) as ctx:
            user = await ctx.administration.find(username)
            await ctx.administration.enable(user.id, COMMAND_LINE)
            print(f"{user.username} is enabled")

    async def end_sessions(self, username: str = "") -> None:
        """End all sessions of a user."""
        _require(username)
        async with self._opened(username) as ctx:
            user = await ctx.administration.find(username)
            await ctx.administration.change(user.id, COMMAND_LINE)
            print(f"all sessions of {user.username} have ended")

    async def delete_user(self, username: str = "", id: str = "") -> None:  # noqa: A002 - the option is --id
        """Delete a user and end all sessions.

        The id serves if the name in the database is damaged.
        """
        if bool(username) == bool(id):
            _exit("--username=... or --id=... is required", code=2)
        async with self._opened(username or id) as ctx:
            user = await (ctx.administration.find(username) if username else ctx.administration.get(id))
            await ctx.administration.delete(user.id, COMMAND_LINE)
            print(f"{username or id} is deleted")

    async def list_users(self) -> None:
        """List all users: id, access, state and name, separated by tabs.

        Users with damaged documents are listed, too.
        """
        async with self._opened() as ctx:
            after = None
            while page := await ctx.administration.page(after, PAGE):
                for user in page:
                    print(*_columns(user), sep="\t")
                after = page[-1].id

    @asynccontextmanager
    async def _with_keys(self) -> AsyncIterator["SigningKeys"]:
        async with self._opened() as ctx:
            if ctx.keys is None:
                _exit(NO_KEY)
            try:
                yield ctx.keys.signing
            except NextKeyTooYoung:
                _exit("others may not know the next key yet: wait for SIGNING_KEY_LEAD_SECONDS, or use --now")
            except UnknownKid:
                _exit("there is no such key; /.well-known/jwks.json lists the keys")
            except ChangedMeanwhile:
                _exit("the keys were changed at the same moment: run it again")

    @asynccontextmanager
    async def _opened(self, username: str = "") -> AsyncIterator[Context]:
        try:
            async with self._services() as ctx:
                yield ctx
        except SecondFactorOff:
            _exit(NO_KEY)
        except UserNotFound:
            _exit(f"there is no user named {username}")
        except UsernameTaken:
            _exit(f"the username {username} is taken")
        except LastAdmin:
            _exit(f"{username} is the last administrator")
        except WeakPassword as weak:
            _exit(str(weak))
        except PyMongoError as error:
            _exit(f"the database cannot serve ({summary(error)}): is MONGO_URI right?")


def register(app: App, services: Services) -> None:
    """Add the commands to the app."""
    commands = Commands(services)
    for command in (
        commands.create_admin,
        commands.set_password,
        commands.mail_test,
        commands.rotate_key,
        commands.drop_key,
        commands.rewrap,
        commands.reset_factors,
        commands.disable_user,
        commands.enable_user,
        commands.end_sessions,
        commands.delete_user,
        commands.list_users,
    ):
        app.command(name=command.__name__.replace("_", "-"))(command)


def _columns(user: User) -> tuple[str, ...]:
    state = f"damaged: {', '.join(user.damaged)}" if user.damaged else "disabled" if user.disabled else "enabled"
    # Another program may have stored control characters, which terminals interpret.
    name = user.username if user.username.isprintable() else ascii(user.username)
    return user.id, user.access.name.lower(), state, name


def _require(username: str) -> None:
    if not username:
        _exit("--username=... is required", code=2)


def _read_password() -> str:
    """Prompt for a password at a terminal, else read a line; an argument would show in the list of processes.

    Exits with the reason if users could not type it: an invisible character at its ends, a control character, or bytes
    that are not UTF-8.
    """
    try:
        password = _prompt() if sys.stdin.isatty() else _line()
    except UnicodeDecodeError:
        _exit("the password on standard input is not valid UTF-8")
    except EOFError:
        _exit("no password was given")
    except KeyboardInterrupt:
        _exit("cancelled", code=130)
    if texts.strip(password) != password:
        _exit("the password begins or ends with an invisible character, such as a space")
    if any(unicodedata.category(character) in UNTYPABLE for character in password):
        _exit("the password contains a control character, or is not valid UTF-8")
    return password


def _prompt() -> str:
    """Return a password that was typed twice. Raises EOFError or KeyboardInterrupt."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's would let the prompt continue
    try:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Repeat the password: ") != password:
            _exit("the passwords differ")
    finally:
        signal.signal(signal.SIGINT, handler)
    return password


def _line() -> str:
    """Return the first line of standard input without its end, whichever it is, and without a byte order mark."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict", newline="")  # whatever the locale is
    return sys.stdin.readline(LINE_LENGTH).rstrip("\r\n").removeprefix("\ufeff")


def _exit(reason: str, *, code: int = 1) -> NoReturn:
    print(reason, file=sys.stderr)
    raise SystemExit(code)
