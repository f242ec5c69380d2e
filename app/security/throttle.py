"""Failed passwords, counted where all workers and machines see the same count."""

import asyncio
import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime

from limits import RateLimitItem, parse

from app.background import shielded
from app.http.problems import Problem, too_many_requests
from app.models.attempts import Attempts
from app.models.users import canonical

KEPT_FOR_USUAL = 5  # every fifth of an account's failures, for the addresses where its owner usually logs in


@dataclass(frozen=True, slots=True)
class Limits:
    """How many failures, or registrations, in how long; written as `10/15minutes`."""

    pair: str
    account: str
    address: str
    registrations: str


@dataclass(frozen=True, slots=True)
class Counted:
    """One count that an attempt went into, and the window's end."""

    key: str
    ends: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One password to be verified, counted already for the pair, the address and the account."""

    pair: Counted
    others: tuple[Counted, ...]


class Throttle:
    """Count every attempt before its password is verified, and take the right ones off again.

    Counting afterwards would let parallel guesses pass the limit together (CVE-2024-4629). A window begins
    with its first attempt and ends as a whole, so Retry-After is exact.
    """

    def __init__(self, attempts: Attempts, limits: Limits) -> None:
        self._attempts = attempts
        self._pair = parse(limits.pair)
        self._account = parse(limits.account)
        self._kept = max(1, self._account.amount // KEPT_FOR_USUAL)
        self._left = max(1, self._account.amount - self._kept)
        self._address = parse(limits.address)
        self._registrations = parse(limits.registrations)

    async def attempt(self, username: str, address: str, *, usual: bool) -> Attempt:
        """Count an attempt on an account from an address. Raises Problem 429.

        What is refused is taken off again, since it is not verified: neither does one address use up an
        account's count, nor do right passwords that come too many at once lock anybody out for long.
        At an address that is usual for the account the failures of others do not matter: a share of the account's
        limit is kept for such addresses, so that both together never exceed it (NIST SP 800-63B-4 section 3.2.2).
        """
        account = hashlib.sha256(canonical(username).encode()).hexdigest()  # of all spellings, in one length
        counted: list[Counted] = []
        most, kind = (self._kept, "usual") if usual else (self._left, "account")
        for limit, enough, key in (
            (self._pair, self._pair.amount, f"pair {account} {address}"),
            (self._address, self._address.amount, f"address {address}"),
            (self._account, most, f"{kind} {account}"),
        ):
            number, ends = await self._attempts.count(key, limit.get_expiry())
            counted.append(Counted(key, ends))
            if number > enough:
                await self._take_back(*counted)
                raise _refused(ends, limit)
        return Attempt(counted[0], tuple(counted[1:]))

    async def succeeded(self, attempt: Attempt) -> None:
        """Forget the pair's failures, and that this attempt was counted."""
        await self._attempts.forget(attempt.pair.key)
        await self._take_back(*attempt.others)

    @shielded
    async def withdraw(self, attempt: Attempt) -> None:
        """Forget that this attempt was counted."""
        await self._take_back(attempt.pair, *attempt.others)

    async def registration(self, address: str) -> None:
        """Count a registration from an address. Raises Problem 429."""
        limit = self._registrations
        number, ends = await self._attempts.count(f"registration {address}", limit.get_expiry())
        if number > limit.amount:
            raise _refused(ends, limit)

    async def _take_back(self, *counted: Counted) -> None:
        await asyncio.gather(*(self._attempts.take_back(one.key, one.ends) for one in counted))


def _refused(ends: datetime, limit: RateLimitItem) -> Problem:
    seconds = math.ceil((ends - datetime.now(UTC)).total_seconds())
    return too_many_requests(min(limit.get_expiry(), max(1, seconds)))
