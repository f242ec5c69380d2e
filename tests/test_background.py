"""Background tasks: a failure does not end the repetition."""

import asyncio
import gc
import threading
from contextlib import suppress

import pytest
from pymongo.errors import ConnectionFailure

from app.background import repeat
from app.database.threads import SharedWork


@pytest.mark.parametrize("error", [ConnectionFailure(), KeyError("generation")])
def test_a_repeated_task_continues_after_a_failure(error: Exception) -> None:
    """Also after an unexpected error, for example one caused by a document of another program."""
    outcomes = [error, None, error, None]

    async def run() -> None:
        done = asyncio.Event()

        async def attempt() -> None:
            outcome = outcomes.pop(0)
            if not outcomes:
                done.set()
            if outcome:
                raise outcome

        task = asyncio.create_task(repeat(attempt, seconds=0.001, name="trying"))
        await asyncio.wait_for(done.wait(), 5)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert not outcomes


def test_shared_work_that_fails_after_its_callers_have_left_is_no_unexpected_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Asyncio would log a traceback whenever the garbage collector runs."""
    left = threading.Event()

    def fail() -> None:
        left.wait()
        raise ConnectionFailure

    async def run() -> None:
        work = SharedWork(fail, "failing")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(), 0.01)
        left.set()
        assert work._running
        await asyncio.wait([work._running])

    asyncio.run(run())
    gc.collect()
    assert not caplog.records
