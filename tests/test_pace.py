"""Turns for large bodies (denial of service by parsing)."""

import asyncio
import json
import time
from itertools import pairwise

import pytest

from app.server.pace import BULKY_BYTES, CHUNKS_AT_ONCE, Pace
from tests.conftest import Service

LARGE = json.dumps({"username": "x" * BULKY_BYTES, "password": ""}).encode()


async def work(pace: Pace, done: list[str], name: str, seconds: float) -> None:
    """Wait for a turn, and occupy the event loop."""
    await pace.turn()
    time.sleep(seconds)  # noqa: ASYNC251 - as parsing does
    done.append(name)


async def others(done: list[str]) -> None:
    """Count iterations of the event loop, until cancelled."""
    while True:
        await asyncio.sleep(0)
        done.append("other")


def test_a_single_body_does_not_wait() -> None:
    async def story() -> bool:
        turn = Pace().turn()
        with pytest.raises(StopIteration):
            turn.send(None)
        return True

    assert asyncio.run(story())


def test_bodies_are_handled_one_after_the_other_and_other_requests_in_between() -> None:
    async def story() -> list[str]:
        pace, done = Pace(), list[str]()
        between = asyncio.create_task(others(done))
        await asyncio.gather(*(work(pace, done, f"body {number}", 0.002) for number in range(5)))
        between.cancel()
        return done

    done = asyncio.run(story())
    places = [done.index(f"body {number}") for number in range(5)]
    assert places == sorted(places)
    assert all(later - earlier > 1 for earlier, later in pairwise(places))


def test_a_client_that_leaves_does_not_hold_its_turn() -> None:
    async def story() -> list[str]:
        pace, done = Pace(), list[str]()
        tasks = [asyncio.create_task(work(pace, done, str(number), 0)) for number in range(4)]
        await asyncio.sleep(0)
        for task in tasks[1:3]:
            task.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks, return_exceptions=True)
            await work(pace, done, "next", 0)
        return done

    assert asyncio.run(story()) == ["0", "3", "next"]


@pytest.mark.parametrize("chunked", [False, True])
def test_only_large_bodies_and_many_chunks_wait(
    service: Service, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    turns: list[int] = []

    async def turn() -> None:
        turns.append(1)

    monkeypatch.setattr(service.app.ctx.connections.pace, "turn", turn)

    async def parts(body: bytes, size: int):  # type: ignore[no-untyped-def]
        for start in range(0, len(body), size):
            yield body[start : start + size]

    headers = {"Content-Type": "application/json"}

    def post(body: bytes, size: int) -> int:
        content = parts(body, size) if chunked else body
        status: int = service("POST", "/auth", content=content, headers=headers).status_code
        return status

    assert post(b'{"username": "x", "password": ""}', 10) == 401
    assert not turns
    assert post(LARGE, len(LARGE)) == 422
    assert turns
    turns.clear()
    assert post(b" " * 2 * CHUNKS_AT_ONCE + b"{}", 1) == 422
    assert bool(turns) == chunked
