"""A client that refreshes its tokens, for any number of concurrent requests. Needs httpx.

async with httpx.AsyncClient(base_url="https://api.example.com") as http:
    session = await Session.log_in(http, "alice", password)
    response = await session.request("GET", "/tests/secret")

FreshSession also answers when a second factor or a recent authentication is required.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

import httpx

ATTEMPTS = 3
RESPONSE_TIMEOUT_SECONDS = 3  # of each attempt, from its start to the end of the response
# Between two attempts. The last one must start within 10 seconds, while the service accepts the same token again.
RETRY_DELAY_SECONDS = 1
# An access token also becomes invalid if the key, clock or settings of the service change. Then only a refresh shows
# whether the session is still active.
REFRESH_CODES = ("token_expired", "token_invalid")

Tokens = dict[str, Any]
Ask = Callable[[list[str]], Awaitable[str]]
# Gets the names of the user's second factors once the service has asked for one, before that an empty list. Returns the
# body of POST /auth/step-up, or None if the user gives up.
Prove = Callable[[list[str]], Awaitable[dict[str, str] | None]]


class SessionEnded(Exception):
    """The session was ended, for example by a logout, or has expired. Log in again."""


class Session:
    """The tokens of one login, refreshed when needed."""

    def __init__(self, http: httpx.AsyncClient, tokens: Tokens) -> None:
        self.tokens = tokens  # store the latest tokens to keep the session after this process ends
        self._http = http
        self._refreshing: asyncio.Task[None] | None = None

    @classmethod
    async def log_in(cls, http: httpx.AsyncClient, username: str, password: str, ask: Ask | None = None) -> Self:
        """Log in. Raises httpx.HTTPStatusError.

        `ask` gets the names of the user's second factors, if there are any, and returns a code.
        """
        response = await http.post("/auth", json={"username": username, "password": password})
        if ask and code_of(response) == "second_factor_required":
            problem = response.json()
            body = {"challenge": problem["challenge"], "code": await ask(problem["factors"])}
            response = await http.post("/auth/second-factor", json=body)
        return cls(http, response.raise_for_status().json())

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, and repeat it once after a refresh if needed. Raises SessionEnded.

        The caller handles all other responses. 429 and 503 have the delay before a retry in Retry-After.
        """
        used = self.tokens
        response = await self._send(used, method, path, options)
        if code_of(response) in REFRESH_CODES:
            await self._refresh_once(used)
            used = self.tokens
            response = await self._send(used, method, path, options)
        if code_of(response) == "session_ended" and self.tokens is not used:
            # A step-up has replaced the session meanwhile.
            response = await self._send(self.tokens, method, path, options)
        if code_of(response) == "session_ended":
            raise SessionEnded
        return response

    async def _send(self, tokens: Tokens, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        headers = {**options.get("headers", {}), "Authorization": f"Bearer {tokens['access_token']}"}
        return await self._http.request(method, path, **{**options, "headers": headers})

    async def _refresh_once(self, used: Tokens) -> None:
        """Refresh once for all waiting requests. The refresh completes even if the first request is cancelled."""
        if self.tokens is used:
            self._refreshing = self._refreshing or asyncio.create_task(self._refresh())
            await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        """Exchange the refresh token for new tokens. Raises SessionEnded.

        Without a response, retry with the same refresh token: the service returns the same successor.
        """
        try:
            for attempt in range(ATTEMPTS):
                await asyncio.sleep(RETRY_DELAY_SECONDS if attempt else 0)
                try:
                    # httpx's own timeout restarts with each byte received.
                    async with asyncio.timeout(RESPONSE_TIMEOUT_SECONDS):
                        body = {"refresh_token": self.tokens["refresh_token"]}
                        response = await self._http.post("/auth/refresh", json=body)
                except (httpx.TransportError, TimeoutError):
                    if attempt == ATTEMPTS - 1:
                        raise
                    continue
                if response.status_code == 401:
                    raise SessionEnded
                if response.status_code != 503:
                    break
            self.tokens = response.raise_for_status().json()
        finally:
            self._refreshing = None


class FreshSession(Session):
    """A session that authenticates again when a route needs a recent authentication, and repeats the request."""

    def __init__(self, http: httpx.AsyncClient, tokens: Tokens) -> None:
        super().__init__(http, tokens)
        self.prove: Prove | None = None
        self._stepping_up = asyncio.Lock()

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; after a refusal for lack of a recent authentication, step up once and repeat it."""
        response = await super().request(method, path, **options)
        if code_of(response) != "step_up_required" or not self.prove:
            return response
        refused = self.tokens
        async with self._stepping_up:  # one for all requests that wait for it
            failed = await self._step_up(self.prove) if self.tokens is refused else None
        return failed or await super().request(method, path, **options)

    async def _step_up(self, prove: Prove) -> httpx.Response | None:
        """Authenticate again, and return the response if it is a refusal."""
        response, factors = None, list[str]()
        while proof := await prove(factors):
            response = await super().request("POST", "/auth/step-up", json=proof)
            if code_of(response) != "second_factor_required" or factors:
                break
            factors = response.json()["factors"]
        if response and response.is_success:
            self.tokens = response.json()
            return None
        return response


def code_of(response: httpx.Response) -> str | None:
    """Return the error code of a 401 response, and None of others."""
    return str(response.json()["code"]) if response.status_code == 401 else None
