"""Connections whose task waits for data without an asyncio.Event, which takes a tenth of a small request's time."""

# mypy: allow-untyped-calls
# (Sanic's protocol has no types.)

from asyncio import Future, get_running_loop
from typing import Any

from sanic.server.protocols.http_protocol import HttpProtocol

from app.server.handling import handle, is_plain


class Protocol(HttpProtocol):
    """A connection."""

    __slots__ = ("_arrival", "_loop")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._arrival: Future[None] | None = None
        self._loop = get_running_loop()
        if is_plain(self.app):
            self.request_handler = handle

    async def receive_more(self) -> None:
        """Wait for data."""
        if self.transport:
            self.transport.resume_reading()
        self._arrival = self._loop.create_future()
        await self._arrival

    def data_received(self, data: bytes) -> None:
        """Add data to the buffer, and let the connection's task go on."""
        super().data_received(data)
        if self._arrival and not self._arrival.done():
            self._arrival.set_result(None)
