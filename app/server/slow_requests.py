"""A limit on how long a request may take to arrive (slowloris)."""

# mypy: allow-untyped-calls
# (Sanic's protocol has no types.)

import math
from time import monotonic

from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage

from app.server import reading
from app.server.exchange import Exchange


class Protocol(reading.Protocol):
    """A connection with a limit on slow requests.

    The limit holds for the arrival of header and body together.

    Sanic's timeouts restart with each byte. This check runs with Sanic's own, a few times a minute, and costs a request
    nothing: REQUEST_ARRIVAL_SECONDS may be exceeded by two such intervals.
    """

    HTTP_CLASS = Exchange
    __slots__ = ("_arriving", "_since", "arrival_seconds")

    def check_timeouts(self) -> None:
        """End a request that takes too long to arrive.

        All other timeouts are checked as usual.
        """
        if self._task and self._late():
            self.time_out()
        else:
            super().check_timeouts()

    def time_out(self) -> None:
        """End the request that is arriving with 408."""
        self.http.exception = RequestTimeout("Request Timeout")
        if self._task:
            self._task.cancel()

    def arriving(self) -> bool:
        """Return whether the beginning of a request has arrived, but not its end."""
        return self._number() is not None

    def _late(self) -> bool:
        arriving = self._number()
        if arriving != getattr(self, "_arriving", 0):
            self._arriving, self._since = arriving, monotonic()
        limit: float = getattr(self, "arrival_seconds", self.app.config.REQUEST_ARRIVAL_SECONDS)
        return monotonic() - self._since > (math.inf if arriving is None else limit)

    def _number(self) -> int | None:
        """Return the number of the request that is arriving now, or None."""
        count: int = self.state["requests_count"]  # of complete headers
        if self.http.stage is Stage.REQUEST:
            return count + 1
        return count if self.http.stage is Stage.HANDLER and self.http.request_body else None

    def abort(self) -> None:
        """Abort the connection when the service stops.

        Its request ends as if the client had left. Sanic would forget the transport first, and then log the URL with
        its query, or a traceback if the request has not arrived.
        """
        if self.transport:
            self.transport.abort()

    def log_disconnect(self) -> None:
        """Do nothing.

        A request with a response has a line, and one without was dropped by its client.
        """
