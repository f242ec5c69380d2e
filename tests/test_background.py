"""What is done again and again is not given up."""

import asyncio
from contextlib import suppress

import pytest
from pymongo.errors import ConnectionFailure

from app.background import repeat


@pytest.mark.parametrize("error", [ConnectionFailure(), KeyError("generation")])
def test_whatever_goes_wrong_the_next_time_is_another_one(error: Exception) -> None:
    """Also what nobody foresaw, such as a document that somebody else has written."""
    outcomes = [error, None, error, None]

    async def story() -> None:
        done = asyncio.Event()

        async def what() -> None:
            outcome = outcomes.pop(0)
            if not outcomes:
                done.set()
            if outcome:
                raise outcome

        task = asyncio.create_task(repeat(what, seconds=0.001, name="trying"))
        await asyncio.wait_for(done.wait(), 5)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert not outcomes
