"""Do something again and again, and say once when it begins to fail and when it works again."""

import asyncio
from collections.abc import Awaitable, Callable

from pymongo.errors import PyMongoError
from sanic.log import logger


async def repeat(what: Callable[[], Awaitable[None]], *, seconds: float, name: str) -> None:
    """Call `what` every so many seconds until cancelled; a database that is away is waited for."""
    failing = False
    while True:
        await asyncio.sleep(seconds)
        try:
            await what()
        except PyMongoError as error:
            if not failing:
                logger.error("%s: failing: %s", name, type(error).__name__)
            failing = True
        else:
            if failing:
                logger.warning("%s: works again", name)
            failing = False
