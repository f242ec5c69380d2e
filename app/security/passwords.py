"""Hash and verify passwords, off the event loop and with bounded concurrency."""

import asyncio
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from passlib.context import CryptContext
from zxcvbn.matching import RANKED_DICTIONARIES

from app.security.password_strength import weakness
from app.security.turns import Caller, Place, Turns

# OWASP Password Storage Cheat Sheet (2026-08): Argon2id with 19 MiB, two passes, one lane.
# pbkdf2_sha256 hashes come from the database of the Flask predecessor; they verify and are replaced.
CONTEXT = CryptContext(
    schemes=["argon2", "pbkdf2_sha256"],
    deprecated="auto",
    argon2__type="ID",
    argon2__memory_cost=19 * 1024,
    argon2__time_cost=2,
    argon2__parallelism=1,
)
# A stored hash decides what its verification costs; beyond these costs, about a second, it would block the others.
MOST_MEMORY_KIB = 256 * 1024
MOST_MEMORY_PASSES = 1024 * 1024  # Argon2's memory in KiB, times its passes
MOST_ROUNDS = 2_000_000  # of PBKDF2
COMMON = RANKED_DICTIONARIES["passwords"].keys()  # 30,000 from published breaches, in lower case
# Added to the process's own: logins hardly slow other requests down then, and take under a second on a saturated core.
NICENESS = 15
ANYBODY = Caller()
MAX_LENGTH = 256  # characters, which bounds the work for one hash

T = TypeVar("T")  # Python 3.11 has no type parameters


class WeakPassword(Exception):
    """The password breaks a rule of the policy.

    `field` is the parameter that it came in.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule


class UnusableHash(Exception):
    """The stored hash is damaged, of an unknown kind, or would take too long."""


def normalise(password: str) -> str:
    """Return the form of a password that is measured and hashed (NIST SP 800-63B-4: NFC)."""
    return unicodedata.normalize("NFC", password)


def _verify(password: str, password_hash: str, dummy_hash: str) -> tuple[bool, str | None]:
    """Verify a password. Raises UnusableHash, after the time that any other hash takes."""
    try:
        if _affordable(password_hash):
            return CONTEXT.verify_and_update(password, password_hash)  # type: ignore[no-any-return]
    except (ValueError, TypeError, NotImplementedError):
        pass  # what passlib raises for malformed hashes
    CONTEXT.verify(password, dummy_hash)
    raise UnusableHash


def _affordable(password_hash: str) -> bool:
    """Return whether the hash is of a known kind and its costs are bounded. Raises passlib's errors."""
    scheme = CONTEXT.identify(password_hash)
    if scheme is None:
        return False
    parsed = CONTEXT.handler(scheme).from_string(password_hash)
    if scheme == "argon2":
        return bool(parsed.memory_cost <= MOST_MEMORY_KIB and parsed.memory_cost * parsed.rounds <= MOST_MEMORY_PASSES)
    return bool(parsed.rounds <= MOST_ROUNDS)


def _hash_if_strong(password: str, *words: str) -> tuple[str | None, str]:
    if weak := weakness(password, words):
        return weak, ""
    return None, CONTEXT.hash(password)


def _lower_priority() -> None:
    # Threads have their own priorities on Linux only; elsewhere the call would slow the whole process down.
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)  # at most 19


class Passwords:
    """The password policy, and a pool of threads for Argon2 whose turns are shared fairly."""

    def __init__(self, *, min_length: int, product: str, threads: int, queue: int, places: int) -> None:
        self._min_length = min_length
        self._product = product
        self._pool = ThreadPoolExecutor(threads, "password", _lower_priority)
        self.turns = Turns(threads=threads, queue=queue, places=places)
        self._dummy_hash = ""

    async def prepare(self) -> None:
        """Make the dummy hash, which takes as long as any other."""
        self._dummy_hash = await self.hash(secrets.token_urlsafe())

    def check_policy(self, password: str, username: str, *, field: str = "password") -> None:
        """Reject a new password that breaks a rule which costs nothing to check.

        Raises WeakPassword.
        """
        password = normalise(password)
        if len(password) < self._min_length:
            rule = f"must have at least {self._min_length} characters"
        elif len(password) > MAX_LENGTH:
            rule = f"must have at most {MAX_LENGTH} characters"
        elif password.casefold() == username.casefold():
            rule = "must not be the username"
        elif password.casefold() in COMMON:
            rule = "is one of the most common passwords"
        else:
            return
        raise WeakPassword(field, rule)

    async def hash(self, password: str, caller: Caller = ANYBODY) -> str:
        """Hash a password that no client chose.

        Raises HashingBusy, and for a client TooManyAttempts.
        """
        return await self._in_turn(caller, CONTEXT.hash, normalise(password))

    async def hash_new(self, password: str, caller: Caller, username: str, *, field: str = "password") -> str:
        """Hash a new password that is hard to guess.

        Raises WeakPassword, HashingBusy or TooManyAttempts.
        """
        password = normalise(password)
        weak, password_hash = await self._in_turn(caller, _hash_if_strong, password, username, self._product)
        if weak:
            raise WeakPassword(field, f"is easy to guess. {weak}")
        return password_hash

    async def verify(self, place: Place, password: str, password_hash: str | None) -> tuple[bool, str | None]:
        """Return whether the password is right, in the turn of a place.

        Also returns a stronger hash if the stored one is outdated. Without a hash (unknown user) a dummy hash is
        verified, which prevents user enumeration by timing. Raises UnusableHash.
        """
        stored = password_hash or self._dummy_hash
        right, better = await self._work(place, _verify, normalise(password), stored, self._dummy_hash)
        return (right, better) if password_hash else (False, None)

    def close(self) -> None:
        """Let running hashes finish, and start no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_turn(self, caller: Caller, function: Callable[..., T], *args: str) -> T:
        with await self.turns.take(caller) as place:
            await place.turn()
            return await self._work(place, function, *args)

    async def _work(self, place: Place, function: Callable[..., T], *args: str) -> T:
        loop = asyncio.get_running_loop()

        # The thread continues although its client has left: it is free when the work is done, not before.
        def done(_: Future[T]) -> None:
            loop.call_soon_threadsafe(place.leave)

        work = self._pool.submit(function, *args)
        work.add_done_callback(done)
        return await asyncio.wrap_future(work)
