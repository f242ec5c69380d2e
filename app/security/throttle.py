"""Failed passwords, counted where all workers and machines see the same count."""

import asyncio
import hashlib
import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from app.errors import too_many_requests
from app.models.collection import in_time
from app.models.users import canonical


@dataclass(frozen=True, slots=True)
class Limits:
    """How many failures, or registrations, in how long; written as `10/15minutes`."""

    pair: str
    account: str
    address: str
    registrations: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One password to be verified, and counted already."""

    account: str
    address: str


def _key(username: str) -> str:
    """Name an account by all its spellings, in a length that any counter can have."""
    return hashlib.sha256(canonical(username).encode()).hexdigest()


class Throttle:
    """Count every attempt before its password is verified, and take the right ones off again.

    Counting afterwards would let parallel guesses pass the limit together (CVE-2024-4629). The window
    begins with its first attempt and is over as a whole, so Retry-After is exact.
    """

    def __init__(self, storage: Storage, limits: Limits, *, seconds: float) -> None:
        self._storage = storage
        self._limiter = FixedWindowRateLimiter(storage)
        self._pair = parse(limits.pair)
        self._account = parse(limits.account)
        self._address = parse(limits.address)
        self._registrations = parse(limits.registrations)
        self._seconds = seconds

    async def attempt(self, username: str, address: str, *, usual: bool) -> Attempt:
        """Count an attempt on an account from an address. Raises Problem 429.

        An attempt that one count refuses does not go into the next. So one address alone cannot use up an
        account's count; and at an address that is usual for the account, the failures of others do not matter.
        """
        attempt = Attempt(_key(username), address)
        await self._hit(self._pair, "pair", attempt.account, address)
        await self._hit(self._address, "address", address)
        await self._hit(self._account, "account", attempt.account, enforced=not usual)
        return attempt

    async def succeeded(self, attempt: Attempt) -> None:
        """Forget the pair's failures, and that this attempt was counted."""
        await in_time(
            asyncio.gather(
                self._limiter.clear(self._pair, "pair", attempt.account, attempt.address),
                self._take_back(self._address, "address", attempt.address),
                self._take_back(self._account, "account", attempt.account),
            ),
            self._seconds,
        )

    async def withdraw(self, attempt: Attempt) -> None:
        """Forget that this attempt was counted."""
        await in_time(
            asyncio.gather(
                self._take_back(self._pair, "pair", attempt.account, attempt.address),
                self._take_back(self._address, "address", attempt.address),
                self._take_back(self._account, "account", attempt.account),
            ),
            self._seconds,
        )

    async def registration(self, address: str) -> None:
        """Count a registration from an address. Raises Problem 429."""
        await self._hit(self._registrations, "registration", address)

    async def _hit(self, limit: RateLimitItem, *key: str, enforced: bool = True) -> None:
        allowed = await in_time(self._limiter.hit(limit, *key), self._seconds)
        if enforced and not allowed:
            stats = await in_time(self._limiter.get_window_stats(limit, *key), self._seconds)
            raise too_many_requests(max(1, math.ceil(stats.reset_time - time.time())))

    async def _take_back(self, limit: RateLimitItem, *key: str) -> None:
        await self._storage.incr(limit.key_for(*key), limit.get_expiry(), amount=-1)
