"""An answer counts from when its request was sent, not from when it arrives."""

import asyncio
import time

import pytest

from verifiers.tests.fake_service import FEED, Answer, FakeServer, FakeService, Query
from verifiers.tests.servers import MANY, STALE_SECONDS, bearer, running, until

DELAY_SECONDS = STALE_SECONDS * 0.25


@pytest.mark.parametrize("implementation", MANY)
def test_a_delayed_answer_counts_from_its_request(implementation: str) -> None:
    """The last answer before the network fails arrives late, but in time."""
    arrivals: list[float] = []

    async def last_answer(service: FakeService, path: str, query: Query) -> Answer:
        if path != FEED or "nonce" not in query or arrivals:
            await asyncio.sleep(3600)
        arrivals.append(time.monotonic())
        answer = await service.honest(path, query)
        await asyncio.sleep(DELAY_SECONDS)
        return answer

    with FakeServer() as server:
        service = server.add("a")
        token, url = service.token(), server.url("").rstrip("/")
        with running(MANY[implementation], url, NAMES="a") as client:
            until(lambda: client.get("/a", headers=bearer(token)).status_code == 200)
            service.fault = last_answer
            until(lambda: arrivals)
            accepted = []
            while time.monotonic() < arrivals[0] + STALE_SECONDS + DELAY_SECONDS:
                began = time.monotonic()
                if client.get("/a", headers=bearer(token)).status_code == 200:
                    accepted.append(began)
                time.sleep(0.02)
            assert accepted[-1] > arrivals[0] + STALE_SECONDS - DELAY_SECONDS, "the delayed answer was not used"
            assert accepted[-1] <= arrivals[0] + STALE_SECONDS
