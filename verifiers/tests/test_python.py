"""What only a look inside the Python verifier can show: its clocks, its memory and its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from verifiers.python import verifier as module
from verifiers.python.verifier import BearerMiddleware, Refusal, Verifier
from verifiers.tests.fake_service import AUDIENCE, FEED, ISSUER, JWKS, Answer, FakeServer, FakeService, Key, Query

STALE_SECONDS = 3
Story = Callable[[Verifier], Awaitable[None]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def service(server: FakeServer) -> FakeService:
    return server.add("service")


async def outcome(verifier: Verifier, token: str) -> str:
    """Return the code of the refusal, or the subject."""
    try:
        return str((await verifier.authenticate([f"Bearer {token}"]))["sub"])
    except Refusal as refusal:
        return str(refusal.args[1])


async def becomes(verifier: Verifier, token: str, expected: str) -> None:
    """Wait for an outcome."""
    async with asyncio.timeout(10):
        while await outcome(verifier, token) != expected:
            await asyncio.sleep(0.02)


@pytest.fixture
def follow(server: FakeServer, service: FakeService) -> Callable[[Story], None]:
    """Run a story with a verifier that follows the service, and check that no task is left."""

    async def run(story: Story) -> None:
        verifier = Verifier(server.url("service"), issuer=ISSUER, audience=AUDIENCE, stale_seconds=STALE_SECONDS)
        following = asyncio.create_task(verifier.follow())
        await becomes(verifier, service.token(), "alice")
        await story(verifier)
        following.cancel()
        await asyncio.wait([following])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return lambda story: asyncio.run(run(story))


def test_a_suspended_machine_accepts_nothing_before_the_next_proof(
    follow: Callable[[Story], None], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(verifier: Verifier) -> None:
        token, clock = service.token(), module.boot_clock
        assert await outcome(verifier, token) == "alice"
        monkeypatch.setattr(module, "boot_clock", lambda: clock() + 60)
        assert await outcome(verifier, token) == "revocations_stale"
        await becomes(verifier, token, "alice")

    follow(story)


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_the_wall_clock_has_no_influence(
    follow: Callable[[Story], None], service: FakeService, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    async def story(verifier: Verifier) -> None:
        ended, good, expired = service.token(sid="ended"), service.token(), service.token(exp=int(time.time()) - 1)
        service.end("ended")
        await becomes(verifier, ended, "session_ended")
        real = time.time
        service.clock = real
        monkeypatch.setattr("time.time", lambda: real() + seconds)
        known = len(service.requests)
        while len(service.requests) < known + 3:
            assert await outcome(verifier, good) == "alice"
            assert await outcome(verifier, ended) == "session_ended"
            assert await outcome(verifier, expired) == "token_expired"
            await asyncio.sleep(0.05)

    follow(story)


def test_ended_sessions_are_forgotten_after_their_time_and_a_margin(
    follow: Callable[[Story], None], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MARGIN_SECONDS", 1)

    async def story(verifier: Verifier) -> None:
        service.ended.append(("short", time.time() + 1))
        service.ended.append(("long", time.time() + 900))
        await becomes(verifier, service.token(sid="short"), "session_ended")
        async with asyncio.timeout(10):
            while "short" in verifier._ended:
                await asyncio.sleep(0.02)
        assert list(verifier._ended) == ["long"]

    follow(story)


def test_the_cache_of_tokens_is_bounded(
    follow: Callable[[Story], None], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 5)

    async def story(verifier: Verifier) -> None:
        tokens = [service.token() for _ in range(20)]
        for token in tokens:
            assert await outcome(verifier, token) == "alice"
        assert list(verifier._verified) == tokens[-5:]
        assert await outcome(verifier, "a.b.c") == "token_invalid"
        assert list(verifier._verified) == tokens[-5:]

    follow(story)


def test_claims_of_a_request_are_its_own(follow: Callable[[Story], None], service: FakeService) -> None:
    async def story(verifier: Verifier) -> None:
        authorization = [f"Bearer {service.token()}"]
        (await verifier.authenticate(authorization))["sub"] = "root"
        claims = await verifier.authenticate(authorization)
        assert (claims["sub"], claims["scopes"], claims["amr"], claims["auth_time"]) == (
            "alice",
            ("user",),
            ("pwd",),
            0,
        )

    follow(story)


def test_requests_with_a_new_key_share_one_fetch_that_no_client_can_cancel(
    follow: Callable[[Story], None], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNKNOWN_KEY_SECONDS", 0)
    new = Key("ES256")

    async def slow_keys(service: FakeService, path: str, query: Query) -> Answer:
        await asyncio.sleep(0.3 if path == JWKS else 0)
        return await service.honest(path, query)

    async def story(verifier: Verifier) -> None:
        service.published.append(new.jwk)
        service.fault = slow_keys
        monkeypatch.setattr(module, "UNKNOWN_KEY_SECONDS", 0.2)
        await asyncio.sleep(0.3)
        before = len([path for path, _ in service.requests if path == JWKS])
        impatient = asyncio.create_task(outcome(verifier, service.token(key=new)))
        await asyncio.sleep(0.1)
        impatient.cancel()
        monkeypatch.setattr(module, "UNKNOWN_KEY_SECONDS", 30)
        results = await asyncio.gather(*(outcome(verifier, service.token(key=new)) for _ in range(10)))
        assert results == ["alice"] * 10
        assert len([path for path, _ in service.requests if path == JWKS]) - before == 1

    follow(story)


def test_a_key_that_is_no_longer_published_is_rejected(follow: Callable[[Story], None], service: FakeService) -> None:
    async def story(verifier: Verifier) -> None:
        token = service.token(key=service.other_key)
        assert await outcome(verifier, token) == "alice"
        service.published = [service.key.jwk]
        await verifier._renew_keys()
        assert await outcome(verifier, token) == "token_invalid"

    follow(story)


def test_an_unknown_cursor_is_followed_by_the_whole_state(
    follow: Callable[[Story], None], service: FakeService
) -> None:
    async def new_release(service: FakeService, path: str, query: Query) -> Answer:
        if path == FEED and query.get("after", "").isdigit():
            return Answer(status=400)
        return (
            await service.honest(path, query)
            if "after" not in query
            else service.signed({**service.claims({**query, "after": "1"}), "after": query["after"], "cursor": "new-1"})
        )

    async def story(verifier: Verifier) -> None:
        service.fault = new_release
        service.end("ended")
        await becomes(verifier, service.token(sid="ended"), "session_ended")

    follow(story)


@pytest.mark.usefixtures("service")
def test_a_websocket_is_rejected_with_a_response(server: FakeServer) -> None:
    async def app(*_: Any) -> None:
        raise AssertionError

    async def story() -> None:
        sent: list[dict[str, Any]] = []

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        verifier = Verifier(server.url("service"), issuer=ISSUER, audience=AUDIENCE)
        middleware = BearerMiddleware(app, verifier)
        await middleware({"type": "websocket", "path": "/", "headers": []}, None, send)
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 401)
        assert middleware._following
        middleware._following.cancel()
        await asyncio.wait([middleware._following])

    asyncio.run(story())


@pytest.mark.usefixtures("service")
def test_the_middleware_stops_with_the_app(server: FakeServer) -> None:
    async def app(*_: Any) -> None:
        await asyncio.sleep(0.1)

    async def story() -> None:
        verifier = Verifier(server.url("service"), issuer=ISSUER, audience=AUDIENCE)
        await BearerMiddleware(app, verifier)({"type": "lifespan"}, None, None)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)

    asyncio.run(story())
