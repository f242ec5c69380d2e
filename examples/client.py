"""A client that stays logged in, for as many requests at once as you like. Needs httpx.

async with httpx.AsyncClient(base_url="https://api.example.com") as http:
    session = await Session.log_in(http, "alice", password)
    response = await session.request("GET", "/tests/secret")
"""

import asyncio
from typing import Any, Self

import httpx

TRIES = 3
ANSWER_SECONDS = 3  # for each, from its beginning to the answer's end
PAUSE_SECONDS = 1  # between them: the last must begin within the ten in which a lost answer can be asked for again
# An access token is also not valid if the service's key, clock or settings have changed; the refresh token tells.
REFRESH_FOR = ("token_expired", "token_invalid")

Tokens = dict[str, Any]


class SessionEnded(Exception):
    """Somebody logged out, or the session has expired: log in again."""


class Session:
    """The tokens of one login, kept fresh."""

    def __init__(self, http: httpx.AsyncClient, tokens: Tokens) -> None:
        self.tokens = tokens  # keep the latest, if the session is to outlive the process
        self._http = http
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    async def log_in(cls, http: httpx.AsyncClient, username: str, password: str) -> Self:
        """Log in. Raises httpx.HTTPStatusError."""
        response = await http.post("/auth", json={"username": username, "password": password})
        return cls(http, response.raise_for_status().json())

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the access token, and once more if that is over. Raises SessionEnded.

        Whatever else is answered is the caller's: 429 and 503 say in Retry-After when to try again.
        """
        used = self.tokens
        response = await self._send(used, method, path, options)
        if response.status_code == 401 and response.json()["code"] in REFRESH_FOR:
            await self._renew(used)
            response = await self._send(self.tokens, method, path, options)
        if response.status_code == 401 and response.json()["code"] == "session_ended":
            raise SessionEnded
        return response

    async def _send(self, tokens: Tokens, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        headers = {**options.get("headers", {}), "Authorization": f"Bearer {tokens['access_token']}"}
        return await self._http.request(method, path, **{**options, "headers": headers})

    async def _renew(self, used: Tokens) -> None:
        """Refresh once for all who wait; and to the end, although whoever asked first may not wait any more."""
        if self.tokens is used:
            self._renewal = self._renewal or asyncio.create_task(self._refresh())
            await asyncio.shield(self._renewal)

    async def _refresh(self) -> None:
        """Exchange the refresh token, with the same one again if no answer comes: it gives the same successor."""
        try:
            for attempt in range(TRIES):
                await asyncio.sleep(PAUSE_SECONDS if attempt else 0)
                try:
                    # httpx's own timeout begins anew with each byte.
                    async with asyncio.timeout(ANSWER_SECONDS):
                        body = {"refresh_token": self.tokens["refresh_token"]}
                        response = await self._http.post("/auth/refresh", json=body)
                except (httpx.TransportError, TimeoutError):
                    if attempt == TRIES - 1:
                        raise
                    continue
                if response.status_code == 401:
                    raise SessionEnded
                if response.status_code != 503:
                    break
            self.tokens = response.raise_for_status().json()
        finally:
            self._renewal = None
