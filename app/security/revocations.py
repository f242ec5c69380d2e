"""Ended sessions, in the memory of every worker, followed in the database."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from bson import Timestamp

from app.clocks import boot_clock
from app.models.sessions import FEED_PAGE, KEY_PREFIX, Sessions

# Added to the longest lifetime of an access token, for machines whose clocks differ or are set back.
MARGIN_SECONDS = 300
BEGINNING = Timestamp(0, 0)
PROOFS = 4  # begun within the time after which a worker is stale


class Observer(Protocol):
    """Is told what each look has found."""

    def seen(self, page: list[tuple[Timestamp, str]]) -> None:
        """Take sessions with their places."""

    def looked(self, settled: Timestamp) -> None:
        """Take the place before which nothing can be missing, after a look."""

    def ended_here(self) -> None:
        """Take note that this worker has ended a session, which the next look will find."""


class Revocations:
    """The sessions whose access tokens are rejected.

    Each look reads a page of the feed that cannot be rolled back. A few looks within `stale_seconds` also prove that
    they are recent (ProvenReader). Only a proven look makes the worker fresh, and from the moment at which it began:
    whatever the network does, no session is accepted longer than that after its end was acknowledged. A proof costs
    the primary and each secondary a write: with 500 workers, this choice took 28 % of a core of the primary, a proof
    with every look 40 %, and no proof at all 17 % (bench/following.py).

    An end gets its place in the feed when it is written, at most `overlap_seconds` before it is acknowledged. So all
    ends that a proven look can have missed have later places than those that were seen `overlap_seconds` before it
    began: from there on the next looks read again. Places are never set back, also not by another primary, whose clock
    is ahead of all that was committed before. But they may jump ahead, so they are not compared with any clock.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        stale_seconds: float,
        lifetime_seconds: int,
        overlap_seconds: float,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._sessions = sessions
        self._stale = stale_seconds
        self._lifetime = lifetime_seconds + MARGIN_SECONDS
        self._overlap = overlap_seconds
        self._clock = clock
        self._forget_at: dict[str, float] = {}  # by session, in the order of insertion: the oldest come first
        self._since = BEGINNING  # the place before which nothing can be missing
        self._looks: deque[tuple[float, Timestamp]] = deque()  # the end of each look, and the last place that it saw
        self.proven_at = -math.inf  # when the last proven look began
        self.dropped_keys: set[str] = set()
        self.observer: Observer | None = None
        self._looking = asyncio.Lock()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._forget_at

    def __len__(self) -> int:
        return len(self._forget_at)

    def add(self, session_id: str) -> None:
        """Add a session that this worker has ended itself."""
        self._remember(session_id)
        if self.observer:
            self.observer.ended_here()

    def _remember(self, session_id: str) -> None:
        self._forget_at.setdefault(session_id, self._clock() + self._lifetime)
        if session_id.startswith(KEY_PREFIX):
            self.dropped_keys.add(session_id.removeprefix(KEY_PREFIX))

    def remembered_seconds(self, session_id: str) -> float:
        """Return for how long an ended session will be remembered, or 0."""
        return max(0.0, self._forget_at.get(session_id, -math.inf) - self._clock())

    def age(self) -> float:
        """Return the seconds since the last proven look began."""
        return self._clock() - self.proven_at

    def stale(self) -> bool:
        """Return whether the last proven look is too old to accept tokens."""
        return self.age() > self._stale

    async def catch_up(self) -> None:
        """Read everything new from the feed, once, and prove it if a proof is due.

        A failed look changes nothing. Raises pymongo's errors.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        began = self._clock()
        proven = self.age() >= self._stale / PROOFS
        newest = await self._read(proven=proven)
        self._looks.append((self._clock(), newest))
        if proven:
            self.proven_at = began
            self._settle(began)
        self._forget(began)
        if self.observer:
            self.observer.looked(self._since)

    async def _read(self, *, proven: bool) -> Timestamp:
        """Add the sessions of the feed from the settled place on, and return the last place."""
        since = self._since
        while True:
            page = await self._sessions.ended_since(since, proven=proven)
            for _, session_id in page:
                self._remember(session_id)
            if self.observer:
                self.observer.seen(page)
            if page:
                since, _ = page[-1]
            if len(page) < FEED_PAGE:
                return since

    def _settle(self, began: float) -> None:
        """Move the settled place to where the looks were that ended long enough before a proven one began."""
        while self._looks and self._looks[0][0] <= began - self._overlap:
            self._since = max(self._since, self._looks.popleft()[1])

    def _forget(self, now: float) -> None:
        expired = []
        for session_id, forget_at in self._forget_at.items():
            if forget_at > now:
                break
            expired.append(session_id)
        for session_id in expired:
            del self._forget_at[session_id]
            self.dropped_keys.discard(session_id.removeprefix(KEY_PREFIX))
