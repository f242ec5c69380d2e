"""The example clients work with a running service."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pyotp
import pytest
from pymongo import MongoClient

from examples import client
from examples.client import FreshSession, Session, SessionEnded
from tests.conftest import PASSWORD, Document
from tests.processes import TIMEOUT_SECONDS
from tests.serving import CHECKOUT, new_name, started

TOKEN_SECONDS = 2
CONCURRENT_REQUESTS = 50
KEY, ENCRYPTION_KEY = secrets.token_urlsafe(48), secrets.token_urlsafe(48)


@pytest.fixture(scope="module")
def mongo(mongo_uri: str) -> Iterator[MongoClient[Document]]:
    """Connect to a database that only these tests use."""
    with MongoClient[Document](f"{mongo_uri}_examples") as mongo:
        yield mongo
        mongo.drop_database(mongo.get_default_database())


@contextmanager
def serving(uri: str, **settings: str) -> Iterator[str]:
    """Run the service with two workers and yield its URL."""
    with started(uri, variables={"APP_ENCRYPTION_KEY": ENCRYPTION_KEY, **settings}) as (server, port):
        server.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def url(mongo_uri: str) -> Iterator[str]:
    """Run a service with short-lived access tokens."""
    settings = {"APP_ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS), "APP_JWT_SECRET_KEY": KEY}
    with serving(f"{mongo_uri}_examples", **settings) as url:
        yield url


class EndlessBody(httpx.AsyncByteStream):
    """A response body that never ends."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)


class LossyTransport(httpx.AsyncBaseTransport):
    """A transport that counts refreshes, and loses the first responses or makes them endless."""

    def __init__(self, losses: int = 0, *, endless: bool = False) -> None:
        self._network = httpx.AsyncHTTPTransport()
        self._losses = losses
        self._endless = endless
        self.refreshes = 0
        self.refresh_sent = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request. The first responses to refreshes are lost."""
        if request.url.path == "/auth/refresh":
            self.refresh_sent.set()
        response = await self._network.handle_async_request(request)
        if request.url.path == "/auth/refresh":
            self.refreshes += 1
            if self.refreshes <= self._losses:
                await response.aread()
                if self._endless:
                    return httpx.Response(200, stream=EndlessBody())
                raise httpx.ReadError("the response is lost", request=request)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._network.aclose()


@asynccontextmanager
async def expired(url: str, network: LossyTransport) -> AsyncIterator[Session]:
    """Yield a session whose access token has just expired."""
    async with httpx.AsyncClient(base_url=url, transport=network, timeout=TIMEOUT_SECONDS) as http:
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


def test_curl_registers_refreshes_and_is_rejected_after_the_logout(mongo_uri: str) -> None:
    with serving(f"{mongo_uri}_examples") as url:
        command = [str(CHECKOUT / "examples" / "curl.sh"), url]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    assert [line for line in result.stdout.splitlines() if line.isdigit()] == ["200", "200", "204", "401"]
    assert '{"Hello":"Secret!"}' in result.stderr
    assert '"code":"session_ended"' in result.stderr


def test_many_requests_with_an_expired_token_cause_one_refresh(url: str, mongo: MongoClient[Document]) -> None:
    async def story() -> None:
        network = LossyTransport()
        async with expired(url, network) as session:
            responses = await asyncio.gather(
                *(session.request("GET", "/tests/secret") for _ in range(CONCURRENT_REQUESTS))
            )
            assert [response.status_code for response in responses] == [200] * CONCURRENT_REQUESTS
            assert network.refreshes == counter(mongo, session) == 1

    asyncio.run(story())


@pytest.mark.parametrize("endless", [False, True], ids=["lost", "endless"])
def test_a_refresh_without_a_response_is_retried(
    url: str, mongo: MongoClient[Document], monkeypatch: pytest.MonkeyPatch, endless: bool
) -> None:
    monkeypatch.setattr(client, "RETRY_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(client, "RESPONSE_TIMEOUT_SECONDS", 1)

    async def story() -> None:
        network = LossyTransport(losses=2, endless=endless)
        async with expired(url, network) as session:
            assert (await session.request("GET", "/tests/secret")).status_code == 200
            assert (network.refreshes, counter(mongo, session)) == (3, 1)

    asyncio.run(story())


def test_a_cancelled_request_does_not_cancel_the_refresh(url: str, mongo: MongoClient[Document]) -> None:
    """Otherwise the refresh token would be used again later, and would count as stolen."""

    async def story() -> None:
        network = LossyTransport()
        async with expired(url, network) as session:
            before = session.tokens
            first = asyncio.create_task(session.request("GET", "/tests/secret"))
            await network.refresh_sent.wait()
            first.cancel()
            assert (await session.request("GET", "/tests/secret")).status_code == 200
            assert session.tokens != before
            assert network.refreshes == counter(mongo, session) == 1

    asyncio.run(story())


def test_an_ended_session_raises_session_ended(url: str) -> None:
    async def story() -> None:
        async with expired(url, LossyTransport()) as session:
            assert (await session.request("POST", "/auth/logout")).status_code == 204
            with pytest.raises(SessionEnded):
                await session.request("GET", "/tests/secret")
            await asyncio.sleep(TOKEN_SECONDS)
            with pytest.raises(SessionEnded):
                await session.request("GET", "/tests/secret")

    asyncio.run(story())


def test_a_session_answers_for_a_second_factor_and_a_recent_authentication(
    url: str, mongo: MongoClient[Document]
) -> None:
    database, secret, asked = mongo.get_default_database(), [""], list[list[str]]()
    name = new_name()

    async def prove(factors: list[str]) -> dict[str, str]:
        asked.append(factors)
        return {"code": pyotp.TOTP(secret[0]).now()} if factors else {"current_password": PASSWORD}

    async def ask(factors: list[str]) -> str:
        return (await prove(factors))["code"]

    async def make_stale(session: Session) -> None:
        """Let the last authentication and the last code be long ago."""
        session_id = session.tokens["refresh_token"].partition(".")[0]
        earlier = datetime.now(UTC) - timedelta(hours=1)
        database.sessions.update_one({"_id": session_id}, {"$set": {"authenticated_at": earlier}})
        database.factors.update_many({"totp": {"$exists": True}}, {"$inc": {"totp.step": -10}})
        await asyncio.sleep(TOKEN_SECONDS)

    async def story() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as http:
            await http.post("/users/registration", json={"username": name, "password": PASSWORD})
            session = await FreshSession.log_in(http, name, PASSWORD)
            await make_stale(session)
            assert (await session.request("POST", "/users/me/totp")).status_code == 401, "without a proof"
            session.prove = prove
            begun = await session.request("POST", "/users/me/totp")
            assert (begun.status_code, asked) == (200, [[]])
            secret[0] = begun.json()["secret"]
            code = {"code": pyotp.TOTP(secret[0]).now()}
            assert (await session.request("POST", "/users/me/totp/confirmation", json=code)).status_code == 200
            await make_stale(session)
            asked.clear()
            session = await FreshSession.log_in(http, name, PASSWORD, ask)
            assert asked == [["totp", "recovery_code"]]
            await make_stale(session)
            asked.clear()
            session.prove = prove
            responses = await asyncio.gather(*(session.request("POST", "/users/me/recovery-codes") for _ in range(3)))
            assert [one.status_code for one in responses] == [200, 200, 200]
            assert asked == [[], ["totp", "recovery_code"]], "they share one step-up"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("key", "active"), [(KEY, True), (secrets.token_urlsafe(48), False)], ids=["same key", "other key"]
)
def test_an_invalid_access_token_is_refreshed_if_the_session_is_active(
    mongo_uri: str, url: str, key: str, active: bool
) -> None:
    """After a change of ACCESS_TOKEN_SECONDS the session is active; after a change of the key it has ended."""

    async def story(before: str) -> None:
        async with httpx.AsyncClient(base_url=before, timeout=TIMEOUT_SECONDS) as http:
            name = new_name()
            await http.post("/users/registration", json={"username": name, "password": PASSWORD})
            session = await Session.log_in(http, name, PASSWORD)
            http.base_url = httpx.URL(url)
            if active:
                assert (await session.request("GET", "/tests/secret")).status_code == 200
            else:
                with pytest.raises(SessionEnded):
                    await session.request("GET", "/tests/secret")

    with serving(f"{mongo_uri}_examples", APP_JWT_SECRET_KEY=key) as before:
        asyncio.run(story(before))
