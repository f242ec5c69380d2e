"""Measure what followers of the feed cost: python -m bench.followers [--followers 1000] [--seconds 20].

Two workers with EdDSA. Prints the median and p99 of GET /tests/secret without followers, while so many wait, and while
they wait and sessions end; and the CPU and memory of all processes of the service.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import alone, published, servers
from bench.connection import Connection
from bench.database import fill_sessions

REQUESTS_PER_SECOND, CONNECTIONS = 400, 4  # to /tests/secret
ENDS_PER_SECOND = 5
ROUNDS = 3


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
    """Run followers for the context."""
    process = multiprocessing.get_context("spawn").Process(target=following, args=(port, number), daemon=True)
    process.start()
    time.sleep(8)  # until all wait
    try:
        yield
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.followers", description=__doc__)
    parser.add_argument("--followers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with alone.service(published.settings(), workers=2) as server:
        tokens = published.signer(server)
        number = int(2 * ROUNDS * options.seconds * ENDS_PER_SECOND)
        signed = [tokens.sign(session_id=id_) for id_ in fill_sessions(alone.uri_of(server), number + 1)]
        measure(server, signed, options.followers, options.seconds)


def measure(server: servers.Server, signed: list[str], number: int, seconds: float) -> None:
    """Alternate between no followers and followers, and print the result."""
    token, durations = signed.pop(), dict[str, list[float]]()

    def run(name: str, *, ending: bool) -> None:
        used = server.cpu_seconds()
        durations.setdefault(name, []).extend(asyncio.run(load(server.port, token, seconds, signed if ending else [])))
        busy = 100 * (server.cpu_seconds() - used) / seconds
        print(f"{name}: {busy:.0f} % of a core, {server.pss_bytes() / 2**20:.0f} MB", flush=True)

    for _ in range(ROUNDS):
        run("without followers", ending=False)
        run("without followers, sessions end", ending=True)
        with followers(server.port, number):
            run(f"{number} followers wait", ending=False)
            run(f"{number} followers wait, sessions end", ending=True)
    p99 = {}
    for name, values in durations.items():
        p99[name] = statistics.quantiles(values, n=100)[98]
        print(f"{name}: median {1000 * statistics.median(values):.2f} ms, p99 {1000 * p99[name]:.2f} ms")
    quiet, ends, waiting, both = p99.values()
    print(f"p99 with followers / without: {waiting / quiet:.2f}, while sessions end {both / ends:.2f}")


if __name__ == "__main__":
    main()
