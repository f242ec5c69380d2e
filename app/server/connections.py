"""A bound on the connections of a worker: a full worker still answers, and no connection ends without a trace."""

# mypy: allow-untyped-calls
# (Sanic's protocol has no types.)

import asyncio
import os
import sys
from asyncio import Transport
from collections import Counter, OrderedDict
from time import monotonic
from typing import Any
from uuid import uuid4

from sanic import Request
from sanic.http.constants import Stage
from sanic.log import error_logger

from app import metrics
from app.http.codes import Code
from app.http.problems import CONTENT_TYPE, Problem, problem_body
from app.server import slow_reads
from app.server.exchange import HEADS
from app.server.pace import Pace

SPARE = 32  # connections beyond the limit, each for one request, so that health checks and others are answered
LOOKS = 32  # connections that are looked at for one that may be closed; bounds the work for a new connection
IDLE_SECONDS = 10  # a full worker closes a persistent connection that was idle for longer
SILENT_SECONDS = 1  # and one whose client is silent for longer before or within a request
UNREAD_SECONDS = 10  # and one whose client leaves a response unread for longer
SPARE_SECONDS = 5  # for the request of a spare connection to arrive
LOG_SECONDS = 10  # between two lines in the log

CLOSED, LIMITED, REFUSED, NO_FILE = "closed", "limited", "refused", "no_file"
EVENTS = {
    CLOSED: "closed for a new one because the client neither sent nor read",
    LIMITED: "limited to one request",
    REFUSED: "refused",
    NO_FILE: "failed attempts to open a file (EMFILE, ENFILE)",
}


class Protocol(slow_reads.Protocol):
    """A connection that is counted, and that makes room if the worker is full."""

    __slots__ = ()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as in Sanic
        """Serve a new connection, or answer 503 and close it if the worker has no room."""
        if self.app.ctx.connections.admit(self):
            super().connection_made(transport)
        else:
            transport.write(refusal())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up, unless the connection was refused."""
        if self.conn_info:
            self.app.ctx.connections.remove(self)
            super().connection_lost(exc)

    def is_silent(self, now: float) -> bool:
        """Return whether the client has neither sent nor read for too long.

        Then the service may close the connection.
        """
        if self.http is None or self.transport is None:
            return False
        if unread := self.unread_seconds(now):
            return unread > UNREAD_SECONDS
        if self.http.stage is Stage.IDLE and self.state["requests_count"]:
            return bool(now - self._time > IDLE_SECONDS)
        return (self.http.stage is Stage.IDLE or self.arriving()) and now - self._time > SILENT_SECONDS

    def make_room(self) -> None:
        """Close the connection, with 408 if a part of a request has arrived."""
        if self.unread_seconds(monotonic()):
            self.abort()
        elif self.http.stage is Stage.IDLE:
            self.close()
        else:
            self.time_out()

    def limit_to_one_request(self) -> None:
        """Close the connection after its first request, or soon if none arrives."""
        self.request_handler = self._handle_only_request
        self.request_timeout = self.keep_alive_timeout = SILENT_SECONDS
        self.arrival_seconds = SPARE_SECONDS

    async def _handle_only_request(self, request: Request[Any, Any]) -> None:
        self.http.keep_alive = False
        await self.app.handle_request(request)


def refusal() -> bytes:
    """Return the response to a refused connection, whatever its request is.

    It costs no memory and little time.
    """
    problem, request_id = Problem(Code.CONNECTIONS_EXHAUSTED), uuid4().hex
    body = problem_body(problem, request_id)
    head = (
        f"{HEADS[problem.code.status]}content-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n"
        f"retry-after: {problem.headers['Retry-After']}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


class Connections:
    """The open connections of a worker, at most `limit` and a few spare ones for one request each.

    A new connection takes the place of one whose client is silent, if there is one; else it is a spare one; else it is
    refused. Those whose turn to be looked at is next are the oldest (second-chance page replacement).
    """

    def __init__(self, limit: int = sys.maxsize) -> None:
        self.limit = limit
        self.pace = Pace()
        self._spare = max(1, min(SPARE, limit // 8))
        self._open: OrderedDict[Protocol, None] = OrderedDict()
        self._counts: Counter[str] = Counter()  # since the latest line in the log
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, connection: Protocol) -> bool:
        """Add a new connection, and return whether there is room for it."""
        if len(self._open) >= self.limit and not self._make_room():
            if len(self._open) >= self.limit + self._spare:
                self._count(REFUSED)
                return False
            self._count(LIMITED)
            connection.limit_to_one_request()
        self._open[connection] = None
        return True

    def remove(self, connection: Protocol) -> None:
        """Remove a closed connection."""
        self._open.pop(connection, None)

    def exhausted(self) -> bool:
        """Return whether the worker is full.

        Then no connection is left, or no file can be opened.
        """
        if len(self._open) >= self.limit:
            return True
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            self._count(NO_FILE)
            return True
        return False

    def measure(self) -> None:
        """Set the gauges."""
        metrics.connections_open.set(len(self._open))
        metrics.connections_left.set(0 if self.exhausted() else self.limit - len(self._open))

    def _make_room(self) -> bool:
        now = monotonic()
        for _ in range(min(LOOKS, len(self._open))):
            connection, _ = self._open.popitem(last=False)
            if connection.is_silent(now):
                connection.make_room()
                self._count(CLOSED)
                return True
            self._open[connection] = None
        return False

    def _count(self, event: str) -> None:
        metrics.connections_exhausted.labels(event).inc()
        self._counts[event] += 1
        if self._timer is None:
            self._log()

    def _log(self) -> None:
        """Log what happened since the latest line; later events are in a line after LOG_SECONDS."""
        self._timer = None
        if self._counts:
            events = ", ".join(f"{count} {EVENTS[event]}" for event, count in self._counts.items())
            error_logger.warning("%s of at most %s connections are open: %s", len(self._open), self.limit, events)
            self._counts.clear()
            self._timer = asyncio.get_running_loop().call_later(LOG_SECONDS, self._log)
