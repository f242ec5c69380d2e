"""The examples of clients, each run against the service."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from pymongo import MongoClient

from examples import client
from examples.client import Session, SessionEnded
from tests.conftest import PASSWORD, Document
from tests.serving import CHECKOUT, new_name, started

TOKEN_SECONDS = 2
AT_ONCE = 50
KEY = secrets.token_urlsafe(48)


@pytest.fixture(scope="module")
def mongo(mongo_uri: str) -> Iterator[MongoClient[Document]]:
    """Give a database of its own."""
    with MongoClient[Document](f"{mongo_uri}_examples") as mongo:
        yield mongo
        mongo.drop_database(mongo.get_default_database())


@contextmanager
def serving(uri: str, **settings: str) -> Iterator[str]:
    """Run two workers and give their address."""
    with started(uri, variables=settings) as (server, port):
        server.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def url(mongo_uri: str) -> Iterator[str]:
    """Run a service whose access tokens expire soon."""
    settings = {"APP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS), "APP_JWT_SECRET_KEY": KEY}
    with serving(f"{mongo_uri}_examples", **settings) as url:
        yield url


class Dripping(httpx.AsyncByteStream):
    """A body that always goes on, and never arrives."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)


class Unlucky(httpx.AsyncBaseTransport):
    """A network that loses the answers to the first refreshes, or has them drip, and counts them all."""

    def __init__(self, losses: int = 0, *, drips: bool = False) -> None:
        self._network = httpx.AsyncHTTPTransport()
        self._losses = losses
        self._drips = drips
        self.refreshes = 0
        self.asked = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it on."""
        if request.url.path == "/auth/refresh":
            self.asked.set()
        response = await self._network.handle_async_request(request)
        if request.url.path == "/auth/refresh":
            self.refreshes += 1
            if self.refreshes <= self._losses:
                await response.aread()
                if self._drips:
                    return httpx.Response(200, stream=Dripping())
                raise httpx.ReadError("the answer is lost", request=request)
        return response

    async def aclose(self) -> None:
        """Hang up."""
        await self._network.aclose()


@asynccontextmanager
async def expired(url: str, network: Unlucky) -> AsyncIterator[Session]:
    """Give a session whose access token has just expired."""
    async with httpx.AsyncClient(base_url=url, transport=network, timeout=20) as http:
        name = new_name()
        await http.post("/users/registration", json={"username": name, "password": PASSWORD})
        session = await Session.log_in(http, name, PASSWORD)
        await asyncio.sleep(TOKEN_SECONDS)
        yield session


def counter(mongo: MongoClient[Document], session: Session) -> int:
    """Return how often the session was refreshed."""
    session_id = session.tokens["refresh_token"].partition(".")[0]
    document = mongo.get_default_database()["sessions"].find_one({"_id": session_id})
    assert document
    return int(document["counter"])


def test_curl_registers_refreshes_and_is_refused_after_the_logout(mongo_uri: str) -> None:
    with serving(f"{mongo_uri}_examples") as url:
        command = [str(CHECKOUT / "examples" / "curl.sh"), url]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in result.stdout.splitlines() if line.isdigit()] == ["200", "200", "204", "401"]
    assert '{"Hello":"Secret!"}' in result.stderr
    assert '"code":"session_ended"' in result.stderr


def test_many_requests_with_an_expired_token_cause_one_refresh(url: str, mongo: MongoClient[Document]) -> None:
    async def story() -> None:
        network = Unlucky()
        async with expired(url, network) as session:
            responses = await asyncio.gather(*(session.request("GET", "/tests/secret") for _ in range(AT_ONCE)))
            assert [response.status_code for response in responses] == [200] * AT_ONCE
            assert network.refreshes == counter(mongo, session) == 1

    asyncio.run(story())


@pytest.mark.parametrize("drips", [False, True], ids=["lost", "dripping"])
def test_an_answer_that_does_not_arrive_is_asked_for_again(
    url: str, mongo: MongoClient[Document], monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    monkeypatch.setattr(client, "RETRY_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(client, "RESPONSE_TIMEOUT_SECONDS", 1)

    async def story() -> None:
        network = Unlucky(losses=2, drips=drips)
        async with expired(url, network) as session:
            assert (await session.request("GET", "/tests/secret")).status_code == 200
            assert (network.refreshes, counter(mongo, session)) == (3, 1)

    asyncio.run(story())


def test_whoever_does_not_wait_any_more_does_not_stop_the_refresh(url: str, mongo: MongoClient[Document]) -> None:
    """Or the token would be used again later, and be taken for stolen."""

    async def story() -> None:
        network = Unlucky()
        async with expired(url, network) as session:
            before = session.tokens
            first = asyncio.create_task(session.request("GET", "/tests/secret"))
            await network.asked.wait()
            first.cancel()
            assert (await session.request("GET", "/tests/secret")).status_code == 200
            assert session.tokens != before
            assert network.refreshes == counter(mongo, session) == 1

    asyncio.run(story())


def test_an_ended_session_is_told_as_such(url: str) -> None:
    async def story() -> None:
        async with expired(url, Unlucky()) as session:
            assert (await session.request("POST", "/auth/logout")).status_code == 204
            with pytest.raises(SessionEnded):
                await session.request("GET", "/tests/secret")
            await asyncio.sleep(TOKEN_SECONDS)
            with pytest.raises(SessionEnded):
                await session.request("GET", "/tests/secret")

    asyncio.run(story())


@pytest.mark.parametrize(("key", "goes_on"), [(KEY, True), (secrets.token_urlsafe(48), False)], ids=["same", "other"])
def test_a_token_that_is_not_valid_any_more_is_refreshed_if_it_can_be(
    mongo_uri: str, url: str, key: str, goes_on: bool
) -> None:
    """After a change of ACCESS_TOKEN_SECONDS the session goes on; after a change of the key it has ended."""

    async def story(before: str) -> None:
        async with httpx.AsyncClient(base_url=before, timeout=20) as http:
            name = new_name()
            await http.post("/users/registration", json={"username": name, "password": PASSWORD})
            session = await Session.log_in(http, name, PASSWORD)
            http.base_url = httpx.URL(url)
            if goes_on:
                assert (await session.request("GET", "/tests/secret")).status_code == 200
            else:
                with pytest.raises(SessionEnded):
                    await session.request("GET", "/tests/secret")

    with serving(f"{mongo_uri}_examples", APP_JWT_SECRET_KEY=key) as before:
        asyncio.run(story(before))
