"""The audit trail: one line for each security event, or for each minute of events that clients can repeat at will."""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.clocks import boot_clock
from app.counters import take_off
from app.http.client import client, current_request, request_id
from app.metrics import events

WINDOW_SECONDS = 60
LINES_PER_NETWORK = 60  # of one event in a window; what else comes from there is counted in one more line
WINDOWS = 10_000
logger = logging.getLogger("audit")


def audit(event: str, **facts: Any) -> None:
    """Log and count a security event, with its facts and the request that caused it."""
    events.labels(event).inc()
    _write({"event": event, **facts, **_caller()})


def audit_repeated(event: str, *, of: str | None, **facts: Any) -> None:
    """Log and count a security event that clients can repeat at will (log flooding, audit trail eviction).

    The first one of an account or session (`of`) from an address is logged at once. Further ones within
    WINDOW_SECONDS are logged as one event with their number (`repeated`), when the window has ended.
    """
    events.labels(event).inc()
    if first := repeats.count({"event": event, **facts, **_caller()}, of):
        _write(first)


def flush(*, everything: bool = False) -> None:
    """Log the numbers of repeated events, of all that there are at the end of the worker."""
    repeats.flush(everything=everything)


def _caller() -> dict[str, str]:
    request = current_request()
    return {"address": client(request).address, "request_id": request_id(request)} if request else {}


def _network() -> str:
    request = current_request()
    return client(request).networks[-1] if request else ""


def _write(facts: dict[str, Any]) -> None:
    logger.info(facts["event"], extra={"facts": facts})


@dataclass(slots=True)
class Window:
    """Events that differ in nothing but their time, and the facts of the first one."""

    ends: float
    facts: dict[str, Any]
    repeated: int


class Repeats:
    """Counts repeated events in the memory of a worker.

    Each open window has logged one line.
    """

    def __init__(self, clock: Callable[[], float] = boot_clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[tuple[str, ...], Window] = OrderedDict()  # those that end first come first
        self._lines: Counter[tuple[str, ...]] = Counter()  # open windows by event and network

    def count(self, facts: dict[str, Any], of: str | None) -> dict[str, Any] | None:
        """Count an event, and return its facts if they are to be logged at once."""
        self.flush()
        lines = (facts["event"], _network())
        key: tuple[str, ...] = (*lines, facts.get("address", ""), of or "")
        others = key not in self._windows and self._lines[lines] >= LINES_PER_NETWORK
        if others:
            key, facts = (*lines, "others"), {"event": facts["event"], "network": lines[1]}
        if window := self._windows.get(key):
            window.repeated += 1
            return None
        self._windows[key] = Window(self._clock() + WINDOW_SECONDS, facts, repeated=int(others))
        self._lines[lines] += 1
        return None if others else facts

    def flush(self, *, everything: bool = False) -> None:
        """Log the events of the windows that have ended."""
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if window.ends > self._clock() and len(self._windows) <= WINDOWS and not everything:
                break
            del self._windows[key]
            take_off(self._lines, key[:2])
            if window.repeated:
                _write({**window.facts, "repeated": window.repeated})


repeats = Repeats()
