"""Log lines about the database that repeat: each is written once."""

import time
from collections.abc import Callable
from threading import Lock

WINDOW_SECONDS = 600
MOST = 100


class Reports:
    """The lines that were logged recently.

    A line is new again once it was not repeated for `WINDOW_SECONDS`, or after `recovered`. At most `MOST` different
    ones are remembered and logged in that time. Threads may use it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._repeated_at: dict[str, float] = {}

    def is_new(self, line: str) -> bool:
        """Return whether a line must be logged."""
        with self._lock:
            now = self._clock()
            self._repeated_at = {known: at for known, at in self._repeated_at.items() if now - at <= WINDOW_SECONDS}
            new = line not in self._repeated_at
            if new and len(self._repeated_at) >= MOST:
                return False
            self._repeated_at[line] = now
            return new

    def recovered(self) -> None:
        """Let every line be new: what failed works again."""
        with self._lock:
            self._repeated_at.clear()
