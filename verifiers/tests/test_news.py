"""Long polls bring news at once, by a cursor of their own, which no proof uses."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from verifiers.tests.fake_service import FEED, Answer, FakeServer, FakeService, Query
from verifiers.tests.servers import MANY, bearer, running, until

SKIPPED = "1000"  # a cursor behind all entries
Get = Callable[[str], httpx.Response]


@contextmanager
def followed(implementation: str, stale_seconds: float) -> Iterator[tuple[FakeService, Get]]:
    """Run a verifier until it listens, and yield its service and a function that presents a token."""
    with FakeServer() as server:
        service = server.add("a")
        url, seconds = server.url("").rstrip("/"), str(stale_seconds)
        with running(MANY[implementation], url, NAMES="a", STALE_SECONDS=seconds) as client:

            def get(token: str) -> httpx.Response:
                return client.get("/a", headers=bearer(token))

            until(lambda: get(service.token()).status_code == 200)
            until(lambda: polls(service))
            yield service, get


def asked(service: FakeService, name: str) -> list[str | None]:
    """Return the cursors of all requests to the feed with a parameter."""
    return [query.get("after") for path, query in list(service.requests) if path == FEED and name in query]


def polls(service: FakeService) -> list[str | None]:
    """Return the cursors of all long polls."""
    return asked(service, "wait")


def proofs(service: FakeService) -> list[str | None]:
    """Return the cursors of all requests with a nonce."""
    return asked(service, "nonce")


@pytest.mark.parametrize("implementation", MANY)
def test_steady_ends_are_heard_before_the_next_proof(implementation: str) -> None:
    stale_seconds, ends = 60, 6

    async def without_proofs(service: FakeService, path: str, query: Query) -> Answer:
        await asyncio.sleep(3600 if "nonce" in query else 0)
        return await service.honest(path, query)

    with followed(implementation, stale_seconds) as (service, get):
        service.fault, began = without_proofs, time.monotonic()
        for number in range(ends):
            token = service.token(sid=f"ended-{number}")
            assert get(token).status_code == 200
            service.end(f"ended-{number}")
            until(lambda token=token: get(token).status_code == 401)  # type: ignore[misc]
        assert time.monotonic() - began < stale_seconds / 4
        until(lambda: polls(service)[-1] == str(ends))
        assert len(polls(service)) <= ends + 2
        assert set(proofs(service)) <= {None, "0"}


@pytest.mark.parametrize("implementation", MANY)
def test_news_that_skip_entries_delay_them_until_the_next_proof(implementation: str) -> None:
    async def skipping(service: FakeService, path: str, query: Query) -> Answer:
        if path != FEED or "nonce" in query:
            return await service.honest(path, query)
        return service.signed({**service.claims(query), "cursor": SKIPPED, "sessions": {}})

    with followed(implementation, 4) as (service, get):
        service.fault = skipping
        service.end("wakes the open poll, which is honest")
        until(lambda: SKIPPED in polls(service))
        token = service.token(sid="skipped")
        assert get(token).status_code == 200
        before = len(proofs(service))
        service.end("skipped")
        until(lambda: get(token).status_code == 401)
        assert len(proofs(service)) - before <= 2  # one may have been answered before the end
        assert SKIPPED not in proofs(service)
        known = len(polls(service))
        until(lambda: "2" in polls(service)[known:])  # the cursor of the proofs


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("implementation", MANY)
def test_a_long_poll_with_an_unknown_cursor_goes_back_to_that_of_the_proofs(implementation: str, status: int) -> None:
    async def skipping(service: FakeService, path: str, query: Query) -> Answer:
        if path != FEED or "nonce" in query:
            return await service.honest(path, query)
        if query["after"] == SKIPPED:
            return Answer(status=status)
        return service.signed({**service.claims(query), "cursor": SKIPPED, "sessions": {}})

    with followed(implementation, 10) as (service, get):
        service.fault = skipping
        service.end("wakes the open poll, which is honest")
        until(lambda: polls(service).count(SKIPPED) > 2)
        first = polls(service).index(SKIPPED)
        assert polls(service)[first + 1] in ("0", "1")
        assert proofs(service).count(None) == 1, "the whole state was read again"
        assert get(service.token()).status_code == 200


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("implementation", MANY)
def test_a_proof_with_an_unknown_cursor_reads_the_whole_state_again(implementation: str, status: int) -> None:
    async def other_release(service: FakeService, path: str, query: Query) -> Answer:
        if path == FEED and query.get("after") == "0":
            return Answer(status=status)
        return await service.honest(path, query)

    with followed(implementation, 4) as (service, get):
        token = service.token(sid="ended")
        service.fault = other_release
        service.end("ended")
        until(lambda: proofs(service).count(None) == 2)
        until(lambda: get(token).status_code == 401)
        until(lambda: "1" in proofs(service))


@pytest.mark.parametrize("implementation", MANY)
def test_news_that_are_answered_at_once_cause_no_flood(implementation: str) -> None:
    stale_seconds = 20

    async def at_once(service: FakeService, path: str, query: Query) -> Answer:
        return service.signed(service.claims(query)) if path == FEED else await service.honest(path, query)

    async def unavailable(service: FakeService, path: str, query: Query) -> Answer:
        return Answer(status=503) if "wait" in query else await service.honest(path, query)

    with followed(implementation, stale_seconds) as (service, _):
        for fault, pause in ((at_once, stale_seconds / 100), (unavailable, stale_seconds / 10)):
            service.fault = fault
            service.end("wakes the open poll, which is honest")
            began, before = time.monotonic(), len(polls(service))
            until(lambda before=before: len(polls(service)) > before + 3)  # type: ignore[misc]
            time.sleep(pause)
            assert len(polls(service)) - before <= (time.monotonic() - began) / pause + 3
