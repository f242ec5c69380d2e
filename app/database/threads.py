"""Blocking work that many wait for, once at a time, in a thread that never delays the end of the process."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread


class SharedWork:
    """Runs a blocking function in a thread of its own.

    All who call meanwhile wait for the same run.

    A caller that leaves does not stop it. It belongs to no request, so no request's time budget ends it.
    """

    def __init__(self, function: Callable[[], None], name: str) -> None:
        self._function = function
        self._name = name
        self._running: asyncio.Future[None] | None = None

    async def __call__(self) -> None:
        """Wait for the run. Raises what the function raises."""
        if self._running is None or self._running.done():
            self._running = asyncio.wrap_future(self._start())
            self._running.add_done_callback(_retrieved)
        await asyncio.shield(self._running)

    def _start(self) -> Future[None]:
        future: Future[None] = Future()

        def run() -> None:
            future.set_running_or_notify_cancel()
            try:
                self._function()
            except BaseException as error:  # it is raised where the caller waits
                future.set_exception(error)
            else:
                future.set_result(None)

        Thread(target=run, name=self._name, daemon=True).start()
        return future


def _retrieved(running: "asyncio.Future[None]") -> None:
    """Take the exception, so that asyncio does not report it when no caller waits any more."""
    if not running.cancelled():
        running.exception()
