"""Hold a call at its door until the test lets it through, so that a race has the order that the test wants."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal, Self

from app.background import unfinished


async def hang_up(request: asyncio.Task[Any]) -> None:
    """Have the client of a request leave, and wait until the server has noticed."""
    others = asyncio.all_tasks() - {request, asyncio.current_task()}
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    served, _ = await asyncio.wait(others, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert served, "one of them served the connection"


class Held:
    """Replaces one method of one object: its first call waits before it begins, or after it is done."""

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
        """Wait until the call stands at the door."""
        async with asyncio.timeout(5):
            await self._reached.wait()

    def let_through(self) -> None:
        """Open the door for good."""
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
        async with asyncio.timeout(5):
            await self._let.wait()


async def hang_up_at(door: Held, request: Awaitable[Any]) -> list[Exception]:
    """Have the client of a request leave while a call stands at the door, then open it; return what went wrong."""
    task = asyncio.ensure_future(request)
    await door.reached()
    await hang_up(task)
    door.let_through()
    outcomes = await asyncio.gather(*unfinished, return_exceptions=True)
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
