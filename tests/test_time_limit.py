"""Patience: what a request asks the database is over in time, and so is all of it together."""

import asyncio
import time
from collections.abc import Awaitable

import pytest
from pymongo.errors import NetworkTimeout

from app.database.collection import be_patient_once, in_time
from app.database.lock import Lock
from config import Config
from tests.conftest import Actor, Service

SECONDS = 0.6  # far from all the waits below, for a busy machine


async def answered(call: Awaitable[None]) -> bool:
    """Tell whether a call was answered within its patience."""
    try:
        await in_time(call, SECONDS)
    except NetworkTimeout:
        return False
    return True


def test_a_call_that_hangs_is_given_up() -> None:
    async def story() -> None:
        began = time.monotonic()
        with pytest.raises(NetworkTimeout):
            await in_time(asyncio.sleep(5), SECONDS)
        assert time.monotonic() - began < 1

    asyncio.run(story())


def test_the_calls_of_one_request_share_their_patience() -> None:
    """One that used up most of it leaves the next ones little, and the next request begins anew."""

    async def story() -> list[bool]:
        be_patient_once()
        first = [await answered(asyncio.sleep(seconds)) for seconds in (0.2, 0.5)]
        be_patient_once()
        return [*first, await answered(asyncio.sleep(0.2))]

    assert asyncio.run(story()) == [True, False, True]


def test_what_belongs_to_no_request_has_patience_for_each_call() -> None:
    async def story() -> list[bool]:
        return [await answered(asyncio.sleep(0.25)) for _ in range(3)]

    assert asyncio.run(story()) == [True, True, True]


def test_a_probe_does_not_pay_for_what_its_connection_asked_before(config: Config, resident: Actor) -> None:
    """A load balancer keeps its connections, and Sanic serves all requests of one in one task."""
    with Service(config.model_copy(update={"MONGO_TIMEOUT_SECONDS": SECONDS})) as service:

        async def slow() -> None:
            await in_time(asyncio.sleep(0.25), SECONDS)

        assert service("GET", "/auth/me", token=resident.tokens["access_token"]).status_code == 200
        service.app.ctx.database.ping = slow  # type: ignore[method-assign]
        assert [service("GET", "/health/ready").status_code for _ in range(4)] == [200] * 4


def test_waiting_for_a_lock_is_waiting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def held_by_others(_: Lock) -> None:
        """Tell that it is not free."""

    monkeypatch.setattr(Lock, "_try", held_by_others)

    async def story() -> float:
        be_patient_once()
        assert await answered(asyncio.sleep(0.4))
        began = time.monotonic()
        with pytest.raises(NetworkTimeout):
            await Lock(None, "any", seconds=SECONDS).held().__aenter__()  # type: ignore[arg-type]
        return time.monotonic() - began

    assert asyncio.run(story()) < 0.4
