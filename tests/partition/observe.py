"""Observers in the background: what workers answer, and which members regard themselves as the primary."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import groupby
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from pymongo.errors import PyMongoError

from tests.partition.members import Member
from tests.partition.network import Host
from tests.partition.requests import Answer, Request

PERIOD_SECONDS = 0.1


class Sight(NamedTuple):
    """What was seen, and when it was asked for."""

    at: float
    seen: str


class Observer:
    """Looks at something again and again, in a thread of a host, and remembers what it saw and when."""

    def __init__(self, name: str, host: Host, look: Callable[[], str]) -> None:
        self.name = name
        self.sights: list[Sight] = []
        self._host = host
        self._look = look
        self._stopping = threading.Event()
        self._ended: Future[None] | None = None

    def __enter__(self) -> Self:
        self._ended = self._host.start(self._run)
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self._stopping.set()
        if self._ended and not error:
            self._ended.result()

    def last(self, seen: str, before: float = math.inf) -> float:
        """Return when this was last seen; minus infinity if never."""
        times = (sight.at for sight in list(self.sights) if sight.seen == seen and sight.at < before)
        return max(times, default=-math.inf)

    def latest(self) -> Sight:
        """Return the latest sight, or one that says that there is none."""
        return self.sights[-1] if self.sights else Sight(-math.inf, "nothing yet")

    def story(self, begin: float) -> str:
        """Return what was seen in which seconds after `begin`."""
        runs = [list(run) for _, run in groupby(list(self.sights), lambda sight: sight.seen)]
        periods = (f"{run[0].at - begin:.2f} to {run[-1].at - begin:.2f} {run[0].seen}" for run in runs)
        return f"{self.name}: {'; '.join(periods)}"

    def _run(self) -> None:
        while not self._stopping.is_set():
            at = time.monotonic()
            self.sights.append(Sight(at, self._look()))
            self._stopping.wait(PERIOD_SECONDS - (time.monotonic() - at))


class Server(Protocol):
    """What accepts or rejects tokens: a worker, or a resource server."""

    name: str
    host: Host

    def protected(self, token: str) -> Request:
        """Return a request that any valid access token allows."""

    def ask(self, request: Request) -> Answer:
        """Send a request."""

    def ask_here(self, request: Request) -> Answer:
        """Send a request, from a thread of its host."""


class Watch(Observer):
    """Observes whether one server accepts an access token."""

    def __init__(self, server: Server, token: str) -> None:
        request = server.protected(token)
        super().__init__(server.name, server.host, lambda: str(server.ask_here(request)))


class Role(Observer):
    """Observes whether a member regards itself as the primary."""

    def __init__(self, member: Member) -> None:
        def look() -> str:
            with suppress(PyMongoError):
                return "primary" if member.client.admin.command("hello")["isWritablePrimary"] else "secondary"
            return "no answer"

        super().__init__(member.name, member.host, look)
