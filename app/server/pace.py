"""Turns for large bodies, so that many of them do not delay everybody else (denial of service by parsing)."""

import asyncio
from collections import deque

BULKY_BYTES = 4096  # larger than the body of any usual request
CHUNKS_AT_ONCE = 100
REST = 3  # a worker rests from large bodies for so many times as long as the latest took


class Pace:
    """Lets large bodies be handled one after the other.

    In their order, and all other requests in between.

    The event loop would otherwise handle all that are complete before it looks at other connections.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._began = 0.0

    async def turn(self) -> None:
        """Wait until it is this body's turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._next(loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a turn; its work is done when the loop calls back."""
        self._began = loop.time()
        if not self._waiting[0].done():  # or its client has left
            self._waiting[0].set_result(None)
        loop.call_soon(self._after, loop)

    def _after(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting.popleft()
        if self._waiting:
            loop.call_later(REST * (loop.time() - self._began), self._next, loop)
