"""Followers of the feed of ended sessions that the service publishes, and requests beside them."""

import asyncio
import base64
import contextlib
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.connection import Connection
from bench.machine import BenchFailed

REQUESTS_PER_SECOND, CONNECTIONS = 400, 4  # to /tests/secret
ENDS_PER_SECOND = 5
START_SECONDS = 8  # until all followers wait for news


def cursor_of(page: bytes) -> str:
    """Return the cursor of a page."""
    payload = page.split(b".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + b"=="))["cursor"])


async def follow(port: int, number: int) -> None:
    """Wait for news on so many connections until cancelled."""

    async def one() -> None:
        connection = await Connection(port).open()
        cursor = cursor_of(await connection.request("GET", "/.well-known/revocations"))
        while True:
            page = await connection.request("GET", f"/.well-known/revocations?after={cursor}&wait=25")
            cursor = cursor_of(page)

    await asyncio.gather(*(one() for _ in range(number)))


def following(port: int, number: int) -> None:
    """Follow in a process of its own."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(follow(port, number))


@contextmanager
def followers(port: int, number: int) -> Iterator[None]:
    """Run followers for the context. Raises BenchFailed if they end before it."""
    process = multiprocessing.get_context("spawn").Process(target=following, args=(port, number), daemon=True)
    process.start()
    time.sleep(START_SECONDS)
    try:
        yield
        if not process.is_alive():
            raise BenchFailed("the followers of the feed have ended")
    finally:
        process.terminate()
        process.join()


async def load(port: int, token: str, seconds: float, ending: list[str]) -> list[float]:
    """Return the durations of requests to /tests/secret, while sessions end."""
    durations: list[float] = []
    ends = time.perf_counter() + seconds

    async def ask() -> None:
        connection = await Connection(port).open()
        due = time.perf_counter()
        while due < ends:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            await connection.request("GET", "/tests/secret", token)
            durations.append(time.perf_counter() - began)
            due += CONNECTIONS / REQUESTS_PER_SECOND

    async def end() -> None:
        connection = await Connection(port).open()
        while ending and time.perf_counter() < ends:
            await connection.request("POST", "/auth/logout", ending.pop())
            await asyncio.sleep(1 / ENDS_PER_SECOND)

    await asyncio.gather(end(), *(ask() for _ in range(CONNECTIONS)))
    return durations
