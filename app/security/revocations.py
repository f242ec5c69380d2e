"""Ended sessions, in the memory of every worker, followed in the database."""

import math
import time
from collections.abc import Callable

from bson import Timestamp

from app.models.sessions import FEED_PAGE, Sessions

# Added to the longest lifetime of an access token, for machines whose clocks differ or are set back.
MARGIN_SECONDS = 300
BEGINNING = Timestamp(0, 0)


class Revocations:
    """The sessions whose access tokens are rejected.

    A write gets its place in the feed when it starts and becomes visible when it is done, at most `overlap_seconds`
    later, since the database aborts slower ones; so each look goes back that far. After a failure everything is read
    again, because the database may have restarted or changed its primary.
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
        self._forget_at: dict[str, float] = {}  # by session, in the order of insertion: the oldest come first
        self._newest = BEGINNING
        self._newest_seen_at = -math.inf
        self._followed_at = -math.inf

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._forget_at

    def __len__(self) -> int:
        return len(self._forget_at)

    def add(self, session_id: str) -> None:
        """Add an ended session, which this worker ended itself or found in the feed."""
        self._forget_at.setdefault(session_id, self._clock() + self._lifetime)

    def age(self) -> float:
        """Return the seconds since the feed was last followed."""
        return self._clock() - self._followed_at

    def stale(self) -> bool:
        """Return whether the last look at the feed is too old to accept tokens."""
        return self.age() > self._stale

    async def catch_up(self) -> None:
        """Read everything new from the feed, once.

        Raises pymongo's errors.
        """
        began = self._clock()
        newest, self._newest = self._newest, BEGINNING  # if this look fails, the next one reads everything
        # Once a look has gone back over all writes that could have been in progress, they need not be read again.
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
