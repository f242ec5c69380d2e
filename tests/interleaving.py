"""Hold a call at a chosen point, so that concurrent requests run in the order that a test requires."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal, Self, TypeVar

from app.background import unfinished

T = TypeVar("T")
U = TypeVar("U")

TIMEOUT_SECONDS = 60  # for a busy machine; nothing takes so long when all is well


class Held:
    """A replacement for one method of one object.

    Holds the first call, before it starts or after it is done.
    """

    def __init__(self, target: Any, method: str, when: Literal["before", "after"] = "before") -> None:
        self._target = target
        self._method = method
        self._when = when
        self._real = getattr(target, method)
        self._reached = asyncio.Event()
        self._let = asyncio.Event()

    def __enter__(self) -> Self:
        setattr(self._target, self._method, self._call)
        return self

    def __exit__(self, *_: object) -> None:
        self._let.set()
        delattr(self._target, self._method)

    async def reached(self) -> None:
        """Wait until the first call is held, at most 5 seconds."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._reached.wait()

    def let_through(self) -> None:
        """Let the held call continue."""
        self._let.set()

    async def _call(self, *args: Any, **kwargs: Any) -> Any:
        if self._reached.is_set():
            return await self._real(*args, **kwargs)
        if self._when == "after":
            result = await self._real(*args, **kwargs)
            await self._wait()
            return result
        await self._wait()
        return await self._real(*args, **kwargs)

    async def _wait(self) -> None:
        self._reached.set()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._let.wait()


async def race(held: Held, first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Run `second` while a call of `first` is held.

    Starts `first`, waits until it reaches the held call, runs `second` to its end, then lets `first` continue. Returns
    both results.
    """
    task = asyncio.ensure_future(first)
    await held.reached()
    outcome = await second
    held.let_through()
    return await task, outcome


async def settle() -> None:
    """Let all tasks run that are ready."""
    for _ in range(5):
        await asyncio.sleep(0)


async def hang_up(request: asyncio.Task[Any]) -> None:
    """Disconnect the client of a request, and wait until the server has detected it."""
    others = asyncio.all_tasks() - {request, asyncio.current_task()}
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    served, _ = await asyncio.wait(others, timeout=TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert served, "the server's task for the connection has not ended"


async def hang_up_at(held: Held, request: Awaitable[Any]) -> list[Exception]:
    """Disconnect the client of a request while a call is held, then let the call continue.

    Returns the exceptions of the shielded tasks.
    """
    task = asyncio.ensure_future(request)
    await held.reached()
    await hang_up(task)
    held.let_through()
    outcomes = await asyncio.gather(*unfinished, return_exceptions=True)
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
