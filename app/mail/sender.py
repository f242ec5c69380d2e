"""Send what is in the outbox: each mail at least once, whichever worker dies."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from email.message import EmailMessage
from typing import Any, Protocol, TypeVar

from pymongo.errors import PyMongoError
from sanic.log import logger

from app import metrics
from app.background import start
from app.database.failures import summary
from app.database.reports import Reports
from app.mail.errors import Later, NotDelivered, Undeliverable, Unreachable
from app.models.outbox import Mail, Outbox

AT_ONCE = 4  # mails of one worker; a server that hangs holds as many tasks, and no request
POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 20.0  # so that all is sent within a minute of the server's return
MEASURE_SECONDS = 5.0
CLOSE_SECONDS = 3.0  # for deliveries that have begun, when the worker stops


class Transport(Protocol):
    """Hands over mails."""

    async def send(self, mail: EmailMessage) -> None:
        """Hand over a mail. Raises NotDelivered, Unreachable or Undeliverable."""


T = TypeVar("T")
Compose = Callable[[Mail], Awaitable[EmailMessage | None]]


class Sender:
    """Claims rows of the outbox and hands over their mails.

    `compose` returns the mail of a row with the secret that is made for it, or None if nothing is to be sent; it raises
    Later. A mail is sent twice only if the worker dies, or the database fails, between the server's reply and the
    removal of the row.
    """

    def __init__(self, outbox: Outbox, transport: Transport, compose: Compose, reports: Reports) -> None:
        self._outbox = outbox
        self._transport = transport
        self._compose = compose
        self._reports = reports
        self._deliveries: set[asyncio.Task[None]] = set()
        self._pause = 0.0
        self._paused_until = 0.0

    async def run(self) -> None:
        """Send until cancelled. Deliveries that have begun continue."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure())
            tasks.create_task(self._claim())

    async def close(self) -> None:
        """Let deliveries that have begun end, or their mails would be sent again."""
        if self._deliveries:
            _, late = await asyncio.wait(self._deliveries, timeout=CLOSE_SECONDS)
            for delivery in late:
                delivery.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claim(self) -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        while True:
            await slots.acquire()
            delivery = start(self._guarded(self._deliver(await self._next())))
            self._deliveries.add(delivery)
            delivery.add_done_callback(self._deliveries.discard)
            delivery.add_done_callback(lambda _: slots.release())

    async def _next(self) -> Mail:
        """Wait for the next row that is due, and claim it."""
        while True:
            await asyncio.sleep(max(0.0, self._paused_until - time.monotonic()))
            if mail := await self._guarded(self._outbox.claim()):
                return mail
            await self._wait()

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Log what fails, and continue: a row that was claimed is due again after its lease."""
        try:
            return await work
        except PyMongoError as error:
            if self._reports.is_new(reason := summary(error)):
                logger.error("sending mails: failing: %s", reason)
        except Exception:
            logger.exception("sending mails: unexpected exception")
        return None

    async def _deliver(self, mail: Mail) -> None:
        if mail.expired:
            return await self._bury(mail, "it could not be sent in time")
        try:
            message = await self._compose(mail)
        except Later as later:
            return await self._outbox.postpone(mail, timedelta(seconds=later.seconds))
        if message is None:
            metrics.mails.labels("dropped").inc()
            return await self._outbox.drop(mail)
        try:
            await self._transport.send(message)
        except Undeliverable as error:
            return await self._bury(mail, str(error))
        except NotDelivered as error:
            return await self._failed(mail, error)
        self._works_again()
        metrics.mails.labels("sent").inc()
        return await self._outbox.sent(mail)

    async def _bury(self, mail: Mail, reason: str) -> None:
        metrics.mails.labels("dead").inc()
        logger.error("a mail of the kind %s was not sent: %s", mail.message, reason)
        await self._outbox.bury(mail, reason)

    async def _failed(self, mail: Mail, error: NotDelivered) -> None:
        metrics.mails.labels("failed").inc()
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(mail.attempts, 8)) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        if isinstance(error, Unreachable):  # then no other mail can be sent either
            self._rest(str(error))
        await self._outbox.retry(mail, timedelta(seconds=pause))

    def _rest(self, reason: str) -> None:
        """Let all tasks pause, for longer each time."""
        if not self._pause:
            logger.error("no mail can be sent: %s", reason)
        if time.monotonic() >= self._paused_until:
            self._pause = min(LONGEST_PAUSE_SECONDS, max(1.0, 2 * self._pause))
            self._paused_until = time.monotonic() + self._pause

    def _works_again(self) -> None:
        if self._pause:
            logger.warning("mails are sent again")
        self._pause = self._paused_until = 0.0

    async def _wait(self) -> None:
        """Wait until this worker writes a row, or another one may have."""
        self._outbox.added.clear()
        try:
            async with asyncio.timeout(POLL_SECONDS * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                await self._outbox.added.wait()
        except TimeoutError:
            pass

    async def _measure(self) -> None:
        while True:
            try:
                backlog = await self._outbox.backlog()
                metrics.mails_waiting.set(backlog.waiting)
                metrics.mails_dead.set(backlog.dead)
                metrics.mails_oldest.set(backlog.oldest_seconds)
            except PyMongoError:
                pass  # which the other tasks report
            await asyncio.sleep(MEASURE_SECONDS)
