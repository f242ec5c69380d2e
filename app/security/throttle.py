"""Limits on password attempts and registrations, counted for all workers and machines."""

import asyncio
import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from limits import RateLimitItem, parse

from app.background import shielded
from app.models.attempts import Attempts
from app.models.users import canonical

TRUSTED_SHARE = 5  # a fifth of an account's failures is reserved for the networks where its user usually logs in


class TooManyAttempts(Exception):
    """A limit is exceeded; `seconds` is the time until its window ends."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of failures and registrations, in the form `10/15minutes`."""

    pair: str
    account: str
    address: str
    registrations: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter that an attempt was added to, and the end of its window."""

    key: str
    ends: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """A counted attempt whose password will be verified."""

    pair: Counted
    others: tuple[Counted, ...]


class Throttle:
    """Counts every attempt before its password is verified, and takes successful ones back.

    Counting afterwards would let parallel guesses exceed the limit together (CVE-2024-4629). A window starts with its
    first attempt and ends as a whole, so Retry-After is exact.
    """

    def __init__(self, attempts: Attempts, limits: Limits) -> None:
        self._attempts = attempts
        self._pair = parse(limits.pair)
        self._account = parse(limits.account)
        self._trusted = max(1, self._account.amount // TRUSTED_SHARE)
        self._untrusted = max(1, self._account.amount - self._trusted)
        self._address = parse(limits.address)
        self._registrations = parse(limits.registrations)

    async def attempt(self, username: str, network: str, *, usual: bool) -> Attempt:
        """Count an attempt on an account from a network.

        A rejected attempt is taken back, since its password is not verified: one address cannot use up an account's
        limit, and parallel right passwords do not lock the account. In a network that is usual for the account only
        attempts from such networks count: a share of the limit is reserved for them, so that both shares together never
        exceed it (NIST SP 800-63B-4 section 3.2.2). Raises TooManyAttempts.
        """
        account = hashlib.sha256(canonical(username).encode()).hexdigest()  # all spellings, in one length
        counted: list[Counted] = []
        amount, kind = (self._trusted, "usual") if usual else (self._untrusted, "account")
        for limit, most, key in (
            (self._pair, self._pair.amount, f"pair {account} {network}"),
            (self._address, self._address.amount, f"address {network}"),
            (self._account, amount, f"{kind} {account}"),
        ):
            number, ends = await self._attempts.count(key, limit.get_expiry())
            counted.append(Counted(key, ends))
            if number > most:
                await self._take_back(*counted)
                raise _exceeded(ends, limit)
        return Attempt(counted[0], tuple(counted[1:]))

    async def succeeded(self, attempt: Attempt) -> None:
        """Reset the pair's failures, and take this attempt back."""
        await self._attempts.reset(attempt.pair.key)
        await self._take_back(*attempt.others)

    @shielded
    async def withdraw(self, attempt: Attempt) -> None:
        """Take an attempt back whose password was not verified."""
        await self._take_back(attempt.pair, *attempt.others)

    async def registration(self, network: str) -> None:
        """Count a registration from a network. Raises TooManyAttempts."""
        limit = self._registrations
        number, ends = await self._attempts.count(f"registration {network}", limit.get_expiry())
        if number > limit.amount:
            raise _exceeded(ends, limit)

    async def _take_back(self, *counted: Counted) -> None:
        await asyncio.gather(*(self._attempts.take_back(one.key, one.ends) for one in counted))


def _exceeded(ends: datetime, limit: RateLimitItem) -> TooManyAttempts:
    seconds = math.ceil((ends - datetime.now(UTC)).total_seconds())
    return TooManyAttempts(min(limit.get_expiry(), max(1, seconds)))
