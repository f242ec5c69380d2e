"""What goes on beside the requests: things done again and again, and things begun that must be finished."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pymongo.errors import PyMongoError
from sanic.log import logger

from app.database.failures import trouble

P = ParamSpec("P")
T = TypeVar("T")
unfinished: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks weakly


def shielded(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have a function finish what it has begun, also when its client leaves, which cancels the handler that waits."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.ensure_future(function(*args, **kwargs))
        unfinished.add(task)
        task.add_done_callback(_finished)
        return await asyncio.shield(task)

    return call


def _finished(task: asyncio.Task[Any]) -> None:
    unfinished.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it when nobody waits any more


async def repeat(what: Callable[[], Awaitable[None]], *, seconds: float, name: str) -> None:
    """Call `what` every so many seconds until cancelled; whatever goes wrong, the next time is another one."""
    failing = False
    while True:
        await asyncio.sleep(seconds)
        try:
            await what()
        except Exception as error:
            if not failing:
                if isinstance(error, PyMongoError):
                    logger.error("%s: failing: %s", name, trouble(error))
                else:
                    logger.error("%s: failing", name, exc_info=error)
            failing = True
        else:
            if failing:
                logger.warning("%s: works again", name)
            failing = False
