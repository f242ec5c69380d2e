"""A limit on how long a client may leave a response unread (slow read)."""

# mypy: allow-untyped-calls
# (Sanic's protocol has no types.)

import socket
from asyncio import Transport
from time import monotonic
from typing import Any

from app.server import slow_requests
from app.server.exchange import PIECE_BYTES

WAITING_BYTES = PIECE_BYTES  # in the write buffer, and as many in the kernel; more make the response wait
NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux


class Protocol(slow_requests.Protocol):
    """A connection with limits on unread responses.

    Few of their bytes wait for the client. By default, the kernel takes up to 4 MB of each connection (tcp(7)).

    The client must read what waits within RESPONSE_TIMEOUT. Sanic's timeouts restart with each byte that it sends.
    """

    __slots__ = ("_full_since",)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._full_since: float | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as in Sanic
        """Serve a new connection."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WAITING_BYTES)
        connection = transport.get_extra_info("socket")
        if NOTSENT_LOWAT and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, WAITING_BYTES)

    def pause_writing(self) -> None:
        """Note that the write buffer is full."""
        super().pause_writing()
        self._full_since = monotonic()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        super().resume_writing()
        self._full_since = None

    def check_timeouts(self) -> None:
        """Abort the connection if its client does not read.

        All other timeouts are checked as usual.
        """
        if self.unread_seconds(monotonic()) > self.app.config.RESPONSE_TIMEOUT:
            self.abort()
        else:
            super().check_timeouts()

    def unread_seconds(self, now: float) -> float:
        """Return for how long a response has waited for the client, or 0 if none waits."""
        if self.transport is None or not self.transport.get_write_buffer_size():
            return 0
        return now - (self._time if self._full_since is None else self._full_since)
