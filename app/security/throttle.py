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


@dataclass(frozen=True, slots=True)
class Count:
    """One of the counts that an attempt goes into."""

    limit: RateLimitItem
    key: tuple[str, ...]


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

        An attempt that is refused is taken off again, since it is not verified: neither does one address use
        up an account's count, nor do right passwords that come too many at once lock anybody out for long.
        At an address that is usual for the account the failures of others do not matter.
        """
        attempt = Attempt(_key(username), address)
        counted: list[Count] = []
        for count in self._counts(attempt):
            enforced = not (usual and count.limit is self._account)
            if await self._hit(count) or not enforced:
                counted.append(count)
            else:
                await self._take_back(count, *counted)
                raise too_many_requests(await self._seconds_left(count))
        return attempt

    async def succeeded(self, attempt: Attempt) -> None:
        """Forget the pair's failures, and that this attempt was counted."""
        pair, *others = self._counts(attempt)
        await in_time(self._limiter.clear(pair.limit, *pair.key), self._seconds)
        await self._take_back(*others)

    async def withdraw(self, attempt: Attempt) -> None:
        """Forget that this attempt was counted."""
        await self._take_back(*self._counts(attempt))

    async def registration(self, address: str) -> None:
        """Count a registration from an address. Raises Problem 429."""
        count = Count(self._registrations, ("registration", address))
        if not await self._hit(count):
            raise too_many_requests(await self._seconds_left(count))

    def _counts(self, attempt: Attempt) -> tuple[Count, Count, Count]:
        return (
            Count(self._pair, ("pair", attempt.account, attempt.address)),
            Count(self._address, ("address", attempt.address)),
            Count(self._account, ("account", attempt.account)),
        )

    async def _hit(self, count: Count) -> bool:
        return await in_time(self._limiter.hit(count.limit, *count.key), self._seconds)

    async def _seconds_left(self, count: Count) -> int:
        """Return how long the window goes on; if the counter has gone meanwhile, the next attempt may come."""
        stats = await in_time(self._limiter.get_window_stats(count.limit, *count.key), self._seconds)
        if stats.remaining:
            return 1
        return min(count.limit.get_expiry(), max(1, math.ceil(stats.reset_time - time.time())))

    async def _take_back(self, *counts: Count) -> None:
        await in_time(asyncio.gather(*(self._decrement(count) for count in counts)), self._seconds)

    async def _decrement(self, count: Count) -> None:
        key = count.limit.key_for(*count.key)
        if await self._storage.get(key) > 0:  # a window that is over would begin anew, with one attempt too many
            await self._storage.incr(key, count.limit.get_expiry(), amount=-1)
