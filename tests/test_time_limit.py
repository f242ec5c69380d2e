"""Time limits: every call of the database ends in time, and all calls of a request share one time budget."""

import asyncio
import selectors
from collections.abc import Awaitable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from pymongo.errors import NetworkTimeout

from app.database.time_limit import TimeLimit
from config import Config
from tests.conftest import Actor, Service

SECONDS = 0.6

T = TypeVar("T")


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting, so that a busy machine changes nothing."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            self._now += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(story)


class Requests:
    """Stands for the server, which serves all requests of a connection in one task."""

    def __init__(self) -> None:
        self._current: Any | None = None
        self.limit = TimeLimit(SECONDS, lambda: self._current)

    def start(self) -> None:
        """Start a request."""
        self._current = SimpleNamespace()

    async def answered(self, call: Awaitable[None]) -> bool:
        """Return whether a call was answered within its limit."""
        try:
            await self.limit.apply(call)
        except NetworkTimeout:
            return False
        return True


def test_a_call_that_hangs_is_given_up() -> None:
    async def story() -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(NetworkTimeout):
            await Requests().limit.apply(asyncio.sleep(5))
        assert asyncio.get_running_loop().time() - began == pytest.approx(SECONDS)

    run(story())


def test_the_calls_of_one_request_share_their_time_budget() -> None:
    """A call that used most of it leaves little to the next ones; the next request has a budget of its own."""

    async def story() -> list[bool]:
        requests = Requests()
        requests.start()
        first = [await requests.answered(asyncio.sleep(seconds)) for seconds in (0.2, 0.5)]
        requests.start()
        return [*first, await requests.answered(asyncio.sleep(0.2))]

    assert run(story()) == [True, False, True]


def test_calls_outside_of_requests_have_a_limit_each() -> None:
    async def story() -> list[bool]:
        requests = Requests()
        return [await requests.answered(asyncio.sleep(0.25)) for _ in range(3)]

    assert run(story()) == [True, True, True]


def test_a_probe_does_not_pay_for_earlier_requests_of_its_connection(config: Config, resident: Actor) -> None:
    """A load balancer keeps its connections, and Sanic serves all requests of one in one task."""
    with Service(config.model_copy(update={"MONGO_TIMEOUT_SECONDS": 2})) as service:
        database = service.app.ctx.database

        async def slow() -> None:
            await database._limit.apply(asyncio.sleep(0.6))

        assert service("GET", "/auth/me", token=resident.tokens["access_token"]).status_code == 200
        database.ping = slow  # type: ignore[method-assign]
        assert [service("GET", "/health/ready").status_code for _ in range(4)] == [200] * 4
