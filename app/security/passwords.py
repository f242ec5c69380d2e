"""Hash and verify passwords, off the event loop and never more at once than the machine can bear."""

import asyncio
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext
from passlib.exc import UnknownHashError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from app.http.problems import unavailable, unprocessable

# OWASP Password Storage Cheat Sheet (2026-08): Argon2id with 19 MiB, two passes, one lane.
# pbkdf2_sha256 is what the database of a Flask predecessor holds; it verifies, and is replaced.
CONTEXT = CryptContext(
    schemes=["argon2", "pbkdf2_sha256"],
    deprecated="auto",
    argon2__type="ID",
    argon2__memory_cost=19 * 1024,
    argon2__time_cost=2,
    argon2__parallelism=1,
)
COMMON = frozenset(FREQUENCY_LISTS["passwords"])  # 30,000 from published breaches, all in lower case
PRODUCT = "sanicapidemo"  # which everybody thinks of first here (NIST SP 800-63B-4: context-specific words)
NO_WORD = re.compile(r"[\W_]")
NICENESS = 15  # requests hardly feel a login then, and one still takes under a second on a core that they saturate
MAX_LENGTH = 256  # characters, so that nobody makes us hash a book

T = TypeVar("T")  # Python 3.11 has no type parameters


def normalise(password: str) -> str:
    """Return the one form in which a password is measured and hashed (NIST SP 800-63B-4: NFC)."""
    return unicodedata.normalize("NFC", password)


def _verify(password: str, password_hash: str) -> tuple[bool, str | None]:
    try:
        return CONTEXT.verify_and_update(password, password_hash)  # type: ignore[no-any-return]
    except UnknownHashError:  # of a scheme that this service does not know
        return False, None


def _yield_to_requests() -> None:
    # Threads have priorities of their own on Linux only; elsewhere the call would slow the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class Passwords:
    """A bounded pool of threads for Argon2, with room for some more to wait."""

    def __init__(self, *, min_length: int, threads: int, queue: int) -> None:
        self._min_length = min_length
        self._pool = ThreadPoolExecutor(threads, "password", _yield_to_requests)
        self._free = asyncio.Semaphore(threads)
        self._queue = queue
        self.waiting = 0
        self._nobodys = CONTEXT.hash("the password of no user")

    def check(self, password: str, username: str, *, field: str = "password") -> None:
        """Refuse a new password that breaks a rule. Raises Problem 422 with the rule, for the field it came in."""
        password = normalise(password)
        if len(password) < self._min_length:
            rule = f"must have at least {self._min_length} characters"
        elif len(password) > MAX_LENGTH:
            rule = f"must have at most {MAX_LENGTH} characters"
        elif password.casefold() == username.casefold():
            rule = "must not be the username"
        elif password.casefold() in COMMON or NO_WORD.sub("", password.casefold()) == PRODUCT:
            rule = "is one of the most common passwords"
        else:
            return
        raise unprocessable([{"field": field, "message": rule}])

    async def hash(self, password: str) -> str:
        """Hash a password. Raises Problem 503 if too many are waiting."""
        await self.wait_for_turn()
        return await self._work(CONTEXT.hash, normalise(password))

    async def wait_for_turn(self) -> None:
        """Wait until a thread is free; whoever gives up leaves the queue here. Raises Problem 503 if too many wait.

        The turn ends with the one piece of work that must follow.
        """
        if self._free.locked() and self.waiting >= self._queue:
            raise unavailable("hashing_busy", "Too many passwords are being checked at the moment. Please try again.")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    async def verify(self, password: str, password_hash: str | None) -> tuple[bool, str | None]:
        """Tell in one's turn whether the password is right, and give a better hash if the stored one has aged.

        Without a hash (there is no such user) it takes as long and is wrong.
        """
        right, better = await self._work(_verify, normalise(password), password_hash or self._nobodys)
        return (right, better) if password_hash else (False, None)

    def close(self) -> None:
        """Let running hashes finish, and take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self, function: Callable[..., T], *args: str) -> T:
        loop = asyncio.get_running_loop()

        # The thread goes on although its client has left: it is free when the work is done, not before.
        def done(_: Future[T]) -> None:
            loop.call_soon_threadsafe(self._free.release)

        work = self._pool.submit(function, *args)
        work.add_done_callback(done)
        return await asyncio.wrap_future(work)
