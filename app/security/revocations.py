"""Ended sessions, held in memory by every worker and followed in the database."""

import math
import time
from collections.abc import Callable

from bson import Timestamp

from app.models.sessions import FEED_PAGE, Sessions

# Beyond the longest-lived access token, for machines whose clocks differ or are set back.
MARGIN_SECONDS = 300
BEGINNING = Timestamp(0, 0)


class Revocations:
    """The sessions that no token may speak for any more.

    A write gets its place in the feed when it begins and shows when it is done, `overlap_seconds` later at
    most, since the database gives up on slower ones; so each look goes back that far. After a failure
    everything is read anew, because the database may have restarted or changed its primary.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        stale_seconds: float,
        lifetime_seconds: int,
        overlap_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._stale = stale_seconds
        self._lifetime = lifetime_seconds + MARGIN_SECONDS
        self._overlap = int(overlap_seconds) + 1
        self._clock = clock
        self._forget_at: dict[str, float] = {}  # by session, in the order of learning, so the oldest come first
        self._newest = BEGINNING
        self._newest_seen_at = -math.inf
        self._followed_at = -math.inf

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._forget_at

    def __len__(self) -> int:
        return len(self._forget_at)

    def add(self, session_id: str) -> None:
        """Learn that a session is over, from the worker's own hand or from the feed."""
        self._forget_at.setdefault(session_id, self._clock() + self._lifetime)

    def age(self) -> float:
        """Return how many seconds old the news is."""
        return self._clock() - self._followed_at

    def stale(self) -> bool:
        """Tell whether the news is too old to judge a token by."""
        return self.age() > self._stale

    async def catch_up(self) -> None:
        """Learn everything that is new, once. Raises pymongo's errors."""
        began = self._clock()
        newest, self._newest = self._newest, BEGINNING  # if this look fails, the next one reads everything
        # Once a look has gone back over all that could have been on its way, it need not be read again and again.
        settled = self._followed_at - self._newest_seen_at > self._overlap
        since = newest if settled else Timestamp(max(newest.time - self._overlap, 0), 0)
        while True:
            page = await self._sessions.ended_since(since)
            for ended, session_id in page:
                self.add(session_id)
                if ended > newest:
                    newest, self._newest_seen_at = ended, self._clock()
            if len(page) < FEED_PAGE:
                break
            since = page[-1][0]
        self._newest = newest
        self._followed_at = began
        self._forget(began)

    def _forget(self, now: float) -> None:
        expired = []
        for session_id, forget_at in self._forget_at.items():
            if forget_at > now:
                break
            expired.append(session_id)
        for session_id in expired:
            del self._forget_at[session_id]
