"""Work beside the requests: repeated tasks, and writes that must finish although their client has left."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pymongo.errors import PyMongoError
from sanic.log import logger

from app.database.failures import summary
from app.database.reports import Reports

P = ParamSpec("P")
T = TypeVar("T")
unfinished: set[asyncio.Task[Any]] = set()  # the event loop holds only weak references to tasks


def shielded(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let a function finish although its client disconnects, which cancels the handler that awaits it."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.shield(start(function(*args, **kwargs)))

    return call


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start work that finishes although its caller may not wait for it."""
    task = asyncio.ensure_future(work)
    unfinished.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    unfinished.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not report it when no handler awaits the task


async def repeat(
    what: Callable[[], Awaitable[None]], *, seconds: float, name: str, reports: Reports | None = None
) -> None:
    """Call `what` every `seconds` until cancelled.

    A failure is logged once, until it works again. One of the database is logged once for all that share `reports`.
    """
    reports = reports or Reports()
    failing = False
    while True:
        await asyncio.sleep(seconds)
        try:
            await what()
        except PyMongoError as error:
            reason = summary(error)
            if reports.is_new(reason):
                logger.error("%s: failing: %s", name, reason)
            failing = True
        except Exception as error:
            if not failing:
                logger.error("%s: failing", name, exc_info=error)
            failing = True
        else:
            if failing:
                reports.recovered()
                logger.warning("%s: works again", name)
            failing = False
