"""The feed of ended sessions for other services: what this worker knows, in signed pages, from memory.

A cursor states the place before which nothing can be missing, and the number and a digest of the sessions from there
on. So any worker can tell whether it knows something new for a cursor that another one has made.
"""

import asyncio
import hashlib
import json
import math
import random
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from bson import Timestamp

from app.background import start
from app.counters import take_off
from app.models.sessions import KEY_PREFIX
from app.security.key_errors import NoKey, StaleFeed, UnknownCursor
from app.security.revocations import Revocations
from app.tokens.feed import FeedTokens

PAGE = 2000  # sessions of a response; the last page also has all of the latest seconds
WAITING, WAITING_OF_NETWORK = 1000, 20  # at a worker
ALL = ""  # the key of all networks together
LOOK_SOON_SECONDS = 0.05  # so that many ends share a look
AT_ONCE = 8  # followers are answered in one round of the event loop, so that others' requests do not wait for all
SPREAD = 0.2  # of a wait, or followers that were told at once would return at once, too (thundering herd)
REMEMBERED, SMALL = 100, 10_000  # contents and pages, for followers that know the same; of at most so many bytes
AHEAD_SECONDS = 60  # a cursor from a later time was made before the database was restored

BEGINNING = 0
Entry = tuple[int, str, int]  # the place as a number, the id, and its digest


class Cursor(NamedTuple):
    """What a follower knows."""

    place: int
    number: int
    digest: int

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """Read a cursor whose form was checked."""
        seconds, increment, number, digest = text.split(".")
        return cls(int(seconds) << 32 | int(increment), int(number), int(digest, 16))

    @property
    def seconds(self) -> int:
        """The time of the place, in seconds since the epoch."""
        return self.place >> 32

    def __str__(self) -> str:
        return f"{self.seconds}.{self.place & 0xFFFFFFFF}.{self.number}.{self.digest:016x}"


class Content(NamedTuple):
    """The sessions of a page as JSON, and the cursor behind them."""

    sessions: str
    cursor: Cursor
    complete: bool


class Feed:
    """Answers followers from memory.

    A worker looks into the database once for all of them.
    """

    def __init__(
        self,
        revocations: Revocations,
        tokens: FeedTokens,
        *,
        replace_key: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._revocations = revocations
        self._tokens = tokens
        self._replace_key = replace_key
        self._clock = clock
        self._settled: list[Entry] = []  # in the order of their places
        self._recent: dict[str, Entry] = {}  # from the settled place on
        self._since = BEGINNING
        self._news = False
        self._changed = asyncio.Event()
        self._contents: dict[int, Content] = {}  # by place, until the next look
        self._summaries: dict[int, Cursor] = {}
        self._signed: dict[str, str] = {}
        self._waiting: Counter[str] = Counter()
        self._answering = asyncio.Semaphore(AT_ONCE)
        self._closing = False
        self._look_is_due = False

    # What Revocations tells.

    def seen(self, page: list[tuple[Timestamp, str]]) -> None:
        """Take ended sessions with their places."""
        for place, session_id in page:
            if session_id not in self._recent:
                self._recent[session_id] = (_number(place), session_id, _digest(session_id))
                self._news = True

    def looked(self, settled: Timestamp) -> None:
        """Take the place before which nothing can be missing, and wake those who wait for news."""
        since = _number(settled)
        ready = sorted(entry for entry in self._recent.values() if entry[0] < since)
        for _, session_id, _ in ready:
            del self._recent[session_id]
        self._settled += ready
        self._since = since
        self._forget()
        self._contents.clear()
        self._summaries.clear()
        self._signed.clear()  # their age is another one now
        if self._news:
            self._news = False
            self._wake()

    def ended_here(self) -> None:
        """Look soon, if a follower waits for news, instead of with the next regular look."""
        if self.followed and not self._look_is_due:
            self._look_is_due = True
            asyncio.get_running_loop().call_later(LOOK_SOON_SECONDS, lambda: start(self._look()))

    def close(self) -> None:
        """Answer all who wait."""
        self._closing = True
        self._wake()

    # What followers ask.

    async def page(self, after: str | None, *, wait: float, nonce: str | None, network: str | None) -> str:
        """Return a signed page of what is new after a cursor.

        Without a cursor it has everything.

        Waits up to `wait` seconds for something new, unless there is a nonce, or too many wait; without a network
        only the limit of all counts. Raises NoKey, StaleFeed or UnknownCursor, and pymongo's errors.
        """
        if not self._tokens.ready:
            raise NoKey
        cursor = Cursor.read(after) if after else None
        if cursor and cursor.seconds > self._clock() + AHEAD_SECONDS:
            raise UnknownCursor
        if cursor and nonce is None and wait and self._has_room(network):
            await self._wait_for_news(cursor, wait * random.uniform(1 - SPREAD, 1), network)  # noqa: S311 - no secret
            async with self._answering:
                await asyncio.sleep(0)
        if self._signs_with_a_dropped_key():
            await self._replace_key()
        unsettled = self._since == BEGINNING and len(self._recent) > PAGE  # right after the start
        if unsettled or self._revocations.stale() or self._signs_with_a_dropped_key():
            raise StaleFeed
        return self._answer(cursor, after, nonce)

    @property
    def followed(self) -> bool:
        """Whether a follower waits for news."""
        return bool(self._waiting)

    def _signs_with_a_dropped_key(self) -> bool:
        return self._tokens.kid in self._revocations.dropped_keys

    def _has_room(self, network: str | None) -> bool:
        of_network = self._waiting[network] if network else 0
        return self._waiting[ALL] < WAITING and of_network < WAITING_OF_NETWORK

    async def _wait_for_news(self, cursor: Cursor, seconds: float, network: str | None) -> None:
        counted = {ALL, network or ALL}
        self._waiting.update(counted)
        try:
            async with asyncio.timeout(seconds):
                while not self._closing and not self._is_new(cursor):
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            for key in counted:
                take_off(self._waiting, key)

    def _is_new(self, cursor: Cursor) -> bool:
        """Return whether this worker knows something that the follower does not; not if it only knows less."""
        here = self._summary(cursor.place)
        return here.number >= cursor.number and here.digest != cursor.digest

    def _summary(self, place: int) -> Cursor:
        """Return the number and the digest of all sessions from a place on."""
        known = self._summaries.get(place)
        if known is None:
            number = digest = 0
            for entry in self._after(place):
                number, digest = number + 1, digest ^ entry[2]
            known = Cursor(place, number, digest)
            if len(self._summaries) < REMEMBERED:
                self._summaries[place] = known
        return known

    def _after(self, place: int) -> Iterable[Entry]:
        yield from self._settled[bisect_left(self._settled, (place,)) :]
        yield from (entry for entry in self._recent.values() if entry[0] >= place)

    def _content(self, place: int) -> Content:
        """Return the sessions from a place on, or a page of them."""
        known = self._contents.get(place)
        if known is None:
            known = self._make(place)
            if len(self._contents) < REMEMBERED and (len(known.sessions) <= SMALL or place == BEGINNING):
                self._contents[place] = known
        return known

    def _make(self, place: int) -> Content:
        first = bisect_left(self._settled, (place,))
        complete = len(self._settled) - first <= PAGE
        if complete:
            entries, cursor = list(self._after(place)), self._summary(max(place, self._since))
        else:
            entries, cursor = self._settled[first : first + PAGE], Cursor(self._settled[first + PAGE][0], 0, 0)
        now = self._now()
        ends = {name: self._until(name, now) for _, name, _ in entries if not name.startswith(KEY_PREFIX)}
        return Content(json.dumps(ends, separators=(",", ":")), cursor, complete)

    def _answer(self, cursor: Cursor | None, after: str | None, nonce: str | None) -> str:
        known = self._signed.get(after or "") if nonce is None else None
        if known is not None:
            return known
        content = self._content(cursor.place if cursor else BEGINNING)
        claims = {
            "iat": self._now(),
            "after": after,
            "cursor": str(content.cursor),
            "complete": content.complete,
            "dropped_keys": sorted(self._revocations.dropped_keys),
            "age": round(max(0.0, self._revocations.age()), 3),
        }
        page = self._tokens.encode(claims | ({"nonce": nonce} if nonce else {}), sessions=content.sessions)
        if nonce is None and len(self._signed) < REMEMBERED and (len(page) <= SMALL or after is None):
            self._signed[after or ""] = page
        return page

    def _now(self) -> float:
        return round(self._clock(), 3)

    def _until(self, name: str, now: float) -> int:
        """Return until when a session must be remembered, by the clock that also states the time of the page."""
        return math.ceil(now + self._revocations.remembered_seconds(name))

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _look(self) -> None:
        self._look_is_due = False
        await self._revocations.catch_up()  # the regular look reports what fails

    def _forget(self) -> None:
        """Forget what Revocations has forgotten."""
        forgotten = 0
        while forgotten < len(self._settled) and self._settled[forgotten][1] not in self._revocations:
            forgotten += 1
        del self._settled[:forgotten]


def _digest(session_id: str) -> int:
    """Return a part of the digest of a set of sessions, which is the exclusive or of all."""
    return int.from_bytes(hashlib.blake2b(session_id.encode(), digest_size=8).digest())


def _number(place: Timestamp) -> int:
    """Return a place as a number, which is compared ten times as fast."""
    return place.time << 32 | place.inc
