"""Limits on password attempts and registrations, counted for all workers and machines."""

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from limits import RateLimitItem, parse

from app.background import shielded, start
from app.clocks import boot_clock
from app.models.attempts import Attempts, Window
from app.models.users import canonical

TRUSTED_SHARE = 5  # a fifth of an account's failures is reserved for the networks where its user usually logs in
GROWTH = 2  # the limit of each network that includes another one, compared with it
REFUSALS_REMEMBERED = 10_000
EMAIL_CHANGES = parse("10/hour")  # claims of an address by one user
FACTOR_FAILURES = (parse("10/15minutes"), parse("50/day"))  # of one user: logins, step-up and resets together
PASSKEY_OPTIONS = parse("120/minute")  # of one network
DAY = 24 * 3600
IN_PROGRESS_SECONDS = 1  # Retry-After, when only attempts that are in progress exceed a limit


def _digest(name: str) -> str:
    """Return one text for all spellings of a name, in one length."""
    return hashlib.sha256(canonical(name).encode()).hexdigest()


def _share(limit: RateLimitItem, *, usual: bool) -> int:
    """Return how many of a user's failures are for usual networks, or for all others."""
    reserved = max(1, limit.amount // TRUSTED_SHARE)
    return reserved if usual else max(1, limit.amount - reserved)


class TooManyAttempts(Exception):
    """A limit is exceeded.

    `seconds` is the time until another attempt may succeed.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of failures, logins, registrations and resets, in the form `10/15minutes`."""

    pair: str
    account: str
    address: str
    logins: str
    registrations: str
    resets: str


@dataclass(frozen=True, slots=True)
class Limit:
    """How many attempts a key may have in a window of so many seconds."""

    key: str
    most: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A counted attempt whose password will be verified.

    `pair` is the account at the client's own network.
    """

    account: str
    pair: Window
    others: tuple[Window, ...]

    def to_document(self) -> dict[str, Any]:
        """Return what settles the attempt later, maybe at another worker."""
        windows = [{"key": window.key, "ends": window.ends} for window in (self.pair, *self.others)]
        return {"account": self.account, "windows": windows}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read an attempt."""
        pair, *others = (Window(one["key"], 0, 0, one["ends"], 0.0) for one in document["windows"])
        return cls(document["account"], pair, tuple(others))


@dataclass(frozen=True, slots=True)
class FactorAttempt:
    """A counted attempt whose second factor will be verified."""

    windows: tuple[Window, ...]


class Throttle:
    """Counts every attempt before its password is verified, and takes successful ones back.

    Counting afterwards would let parallel guesses exceed the limit together (CVE-2024-4629). A window starts with its
    first attempt and ends as a whole, so Retry-After is exact. A client with an IPv6 line has many networks, so that
    they are counted together, too, with limits that grow. A limit that failures have reached is remembered until its
    window ends: further attempts then cost the database nothing.
    """

    def __init__(self, attempts: Attempts, limits: Limits, *, clock: Callable[[], float] = boot_clock) -> None:
        self._attempts = attempts
        self._pair = parse(limits.pair)
        self._account = parse(limits.account)
        self._address = parse(limits.address)
        self._logins = parse(limits.logins)
        self._registrations = parse(limits.registrations)
        self._resets = parse(limits.resets)
        self._clock = clock
        self._refused_until: OrderedDict[str, float] = OrderedDict()

    async def attempt(self, typed: str, networks: tuple[str, ...], *, usual: bool, account: str) -> Attempt:
        """Count an attempt on an account from a network and those that include it.

        A pair is counted by the name or address that was typed, the account always by its name.

        A rejected attempt is taken back, since its password is not verified: one network cannot use up an account's
        limit, and parallel right passwords do not lock the account. In a network that is usual for the account only
        attempts from such networks count, also if others in that network guess: a share of the limit is reserved for
        them, so that both shares together never exceed it (NIST SP 800-63B-4 section 3.2.2). Raises TooManyAttempts.
        """
        account = _digest(account)
        pairs = self._by_network(f"pair {_digest(typed)}", self._pair, networks)
        addresses = () if usual else self._by_network("address", self._address, networks)
        kind = "usual" if usual else "account"
        of_account = Limit(f"{kind} {account}", _share(self._account, usual=usual), self._account.get_expiry())
        self._require_not_refused(f"logins {account}")
        pair, *others = await self._counted([*pairs, *addresses, of_account])
        return Attempt(account, pair, tuple(others))

    async def factor(self, user_id: str, *, usual: bool) -> FactorAttempt:
        """Count an attempt with a second factor, over all challenges of a user.

        Other networks cannot use up the share that is reserved for the usual ones. Raises TooManyAttempts.
        """
        limits = []
        for limit in FACTOR_FAILURES:
            seconds = limit.get_expiry()
            limits.append(Limit(f"factor {seconds} {user_id}", limit.amount, seconds))
            if not usual:
                limits.append(Limit(f"factor elsewhere {seconds} {user_id}", _share(limit, usual=False), seconds))
        return FactorAttempt(tuple(await self._counted(limits)))

    async def factor_failed(self, attempt: FactorAttempt) -> None:
        """Count the attempt as failed."""
        await asyncio.gather(*map(self._attempts.fail, attempt.windows))

    async def take_back_factor(self, attempt: FactorAttempt) -> None:
        """Take an attempt back that was right, or not verified."""
        await self._take_back(*attempt.windows)

    async def first_wrong_factor(self, user_id: str) -> bool:
        """Return whether it is the first one in a day.

        Only of that the user is told.
        """
        return (await self._attempts.count(f"factor told {user_id}", DAY)).attempts == 1

    async def succeeded(self, attempt: Attempt) -> None:
        """Reset the pair's failures, take this attempt back, and count the login.

        Raises TooManyAttempts if the account has too many logins.
        """
        limit = Limit(f"logins {attempt.account}", self._logins.amount, self._logins.get_expiry())
        logins, _, _ = await asyncio.gather(
            self._attempts.count(limit.key, limit.seconds),
            self._attempts.reset(attempt.pair.key),
            self._take_back(*attempt.others),
        )
        if logins.attempts > limit.most:
            raise self._reached(limit, logins)

    async def failed(self, attempt: Attempt) -> None:
        """Count the attempt as failed."""
        await asyncio.gather(*map(self._attempts.fail, (attempt.pair, *attempt.others)))

    @shielded
    async def withdraw(self, attempt: Attempt) -> None:
        """Take an attempt back whose password was not verified."""
        await self._take_back(attempt.pair, *attempt.others)

    async def email_change(self, user_id: str) -> None:
        """Count a claim of an address. Raises TooManyAttempts."""
        limit = Limit(f"email {user_id}", EMAIL_CHANGES.amount, EMAIL_CHANGES.get_expiry())
        await self._count([limit], takes_back=False)

    async def reset(self, networks: tuple[str, ...]) -> None:
        """Count a request for a reset from a network and those that include it.

        Raises TooManyAttempts.
        """
        await self._count([*self._by_network("reset", self._resets, networks)], takes_back=False)

    async def passkey_options(self, networks: tuple[str, ...]) -> None:
        """Count a challenge for a login by passkey.

        Of a network and those that include it. Raises TooManyAttempts.
        """
        await self._count([*self._by_network("passkey", PASSKEY_OPTIONS, networks)], takes_back=False)

    async def registration(self, networks: tuple[str, ...]) -> None:
        """Count a registration from a network and those that include it.

        Raises TooManyAttempts.
        """
        limits = [*self._by_network("registration", self._registrations, networks)]
        await self._count(limits, takes_back=False)

    def _by_network(self, name: str, limit: RateLimitItem, networks: Iterable[str]) -> Iterator[Limit]:
        for size, network in enumerate(networks):
            yield Limit(f"{name} {network}", limit.amount * GROWTH**size, limit.get_expiry())

    async def _counted(self, limits: list[Limit]) -> list[Window]:
        """Count an attempt, which does not stay counted if the client leaves meanwhile. Raises TooManyAttempts."""
        counting = start(self._count(limits))
        try:
            return await asyncio.shield(counting)
        except asyncio.CancelledError:
            start(self._undo(counting))
            raise

    async def _count(self, limits: list[Limit], *, takes_back: bool = True) -> list[Window]:
        """Count an attempt for each limit, or for none.

        If successful attempts are taken back, those in progress may leave room in a moment. Raises TooManyAttempts.
        """
        self._require_not_refused(*(limit.key for limit in limits))
        windows = await asyncio.gather(*(self._attempts.count(limit.key, limit.seconds) for limit in limits))
        exceeded = [
            (limit, window) for limit, window in zip(limits, windows, strict=True) if window.attempts > limit.most
        ]
        if exceeded:
            await self._take_back(*windows)
            refusals = [
                TooManyAttempts(IN_PROGRESS_SECONDS)
                if takes_back and window.failed < limit.most
                else self._reached(limit, window)
                for limit, window in exceeded
            ]
            raise max(refusals, key=lambda refusal: refusal.seconds)
        return windows

    async def _undo(self, counting: "asyncio.Task[list[Window]]") -> None:
        with suppress(TooManyAttempts):  # then they were taken back
            await self._take_back(*await counting)

    async def _take_back(self, *windows: Window) -> None:
        await asyncio.gather(*map(self._attempts.take_back, windows))

    def _reached(self, limit: Limit, window: Window) -> TooManyAttempts:
        """Remember that a limit is reached until its window ends, and return the refusal."""
        self._refused_until[limit.key] = self._clock() + window.left
        if len(self._refused_until) > REFUSALS_REMEMBERED:
            self._refused_until.popitem(last=False)
        return TooManyAttempts(max(1, math.ceil(window.left)))

    def _require_not_refused(self, *keys: str) -> None:
        """Answer from memory where a limit was reached. Raises TooManyAttempts."""
        for key in keys:
            left = self._refused_until.get(key, 0) - self._clock()
            if left > 0:
                raise TooManyAttempts(math.ceil(left))
            self._refused_until.pop(key, None)
