"""News arrive between two proofs, and the size of an answer is limited."""

import time

import pytest

from verifiers.tests.fake_service import FEED, Answer, FakeServer, FakeService, Fault, Query
from verifiers.tests.servers import MANY, bearer, running, until

LIMIT_BYTES = 4 * 1024 * 1024


@pytest.mark.parametrize("implementation", MANY)
def test_a_long_poll_brings_an_end_long_before_the_next_proof(implementation: str) -> None:
    with FakeServer() as server:
        service = server.add("a")
        token, url = service.token(sid="ended"), server.url("").rstrip("/")
        with running(MANY[implementation], url, NAMES="a", STALE_SECONDS="60") as client:
            until(lambda: client.get("/a", headers=bearer(token)).status_code == 200)
            until(lambda: any("wait" in query for _, query in service.requests))
            service.end("ended")
            began = time.monotonic()
            until(lambda: client.get("/a", headers=bearer(token)).status_code == 401)
            assert time.monotonic() - began < 5


def padded(characters: int) -> Fault:
    """Sign answers that are longer by 4/3 of this number, in base64."""

    async def fault(service: FakeService, path: str, query: Query) -> Answer:
        if path != FEED:
            return await service.honest(path, query)
        return service.signed({**service.claims(query), "padding": "." * characters})

    return fault


@pytest.mark.parametrize("implementation", MANY)
def test_the_size_of_an_answer_is_limited(implementation: str) -> None:
    with FakeServer() as server:
        small, large = server.add("small"), server.add("large")
        small.fault, large.fault = padded(LIMIT_BYTES * 3 // 4 - 5000), padded(LIMIT_BYTES * 3 // 4 + 5000)
        url = server.url("").rstrip("/")
        with running(MANY[implementation], url, NAMES="small,large", STALE_SECONDS="12") as client:
            client.get("/large", headers=bearer(large.token()))
            until(lambda: client.get("/small", headers=bearer(small.token())).status_code == 200)
            until(lambda: len([query for _, query in large.requests if "nonce" in query]) > 2)
            assert client.get("/large", headers=bearer(large.token())).status_code == 503
