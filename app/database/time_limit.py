"""The time limit of database calls, which all calls of one request share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pymongo.errors import PyMongoError, ServerSelectionTimeoutError

from app.database.failures import NoAnswer, is_unavailable
from app.metrics import mongo_commands

LEFT = "database_seconds"  # the attribute of a request's context that holds its remaining time budget
SUCCEEDED, FAILED = (mongo_commands.labels(outcome) for outcome in ("succeeded", "failed"))

T = TypeVar("T")


class TimeLimit:
    """A time limit for calls, and a time budget for requests.

    Both are `seconds`: each call has the limit, all calls of a request together have the budget. `request_context`
    returns the namespace of the request that the running task serves, or None outside of requests. The budget lives
    there, so no route can forget to start it. Only waiting for the database counts. `trouble` returns why no server can
    be used, or None.
    """

    def __init__(
        self,
        seconds: float,
        request_context: Callable[[], Any | None],
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.seconds = seconds
        self._request_context = request_context
        self.trouble = trouble

    async def apply(self, call: Awaitable[T]) -> T:
        """Wait for a call. Raises NoAnswer, which is a NetworkTimeout.

        The driver's own limits begin when one of its threads takes the call; while the database hangs, waiting for a
        thread needs a limit, too.
        """
        context = self._request_context()
        left: float = self.seconds if context is None else getattr(context, LEFT, self.seconds)
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(left):
                result = await call
        except (TimeoutError, ServerSelectionTimeoutError):
            FAILED.inc()
            raise NoAnswer(self.trouble() or f"no answer from the database within {self.seconds} s") from None
        except PyMongoError as error:
            (FAILED if is_unavailable(error) else SUCCEEDED).inc()  # a duplicate key is an answer, too
            raise
        else:
            SUCCEEDED.inc()
            return result
        finally:
            if context is not None:
                setattr(context, LEFT, left - (clock() - started))
