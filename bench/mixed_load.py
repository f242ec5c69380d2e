"""A steady mixed load: users register, use the service, change and reset passwords, and delete their accounts again.

Each client repeats one sequence of requests. It leaves as many users and active sessions as it has found, so that only
a leak makes the service grow.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from bench.connection import Connection
from bench.machine import BenchFailed
from bench.mail import MailServer
from bench.tokens import TokenSigner

CLIENTS = 24
REQUESTS_PER_SECOND = 400  # of all clients; the workers, MongoDB and the clients together use less than one core
REFRESHES, HELLOS, SECRETS = 5, 8, 10  # in each of the three parts of a sequence; hello and secret for each refresh
MAIL_SECONDS, POLL_SECONDS = 30.0, 0.05  # until a mail must have arrived


@dataclass(frozen=True)
class Target:
    """The service, its administrator, and the mail server."""

    port: int
    admin_id: str
    signer: TokenSigner
    mails: MailServer

    def admin_token(self) -> str:
        """Return a new token of the administrator."""
        return self.signer.sign(user_id=self.admin_id, admin=True)


class Client:
    """A client that sends requests at a steady rate, one after the other; each sequence has its own connection.

    `addresses` are those of users whose passwords it resets; all of them are verified.
    """

    def __init__(self, target: Target, addresses: Sequence[str]) -> None:
        self.requests = 0  # that were due before the end; the last sequence is completed afterwards
        self._target = target
        self._addresses = cycle(addresses)
        self._due = self._ends = 0.0  # by the monotonic clock

    async def run(self, start_seconds: float, seconds: float) -> None:
        """Repeat the sequence until so many seconds have passed. Raises BenchFailed."""
        self._ends = time.monotonic() + seconds
        await asyncio.sleep(start_seconds)
        self._due = time.monotonic()
        while time.monotonic() < self._ends:
            self._connection = await Connection(self._target.port).open()
            with closing(self._connection):
                await self._live()
                await self._reset(next(self._addresses))

    async def _live(self) -> None:
        """Use an account from its registration to its deletion."""
        name, password, new_password = (secrets.token_hex(12) for _ in range(3))
        tokens = await self._use(await self._post("/users/registration", username=name, password=password))
        change = {"current_password": password, "new_password": new_password}
        tokens = await self._use(await self._post("/users/me/password", tokens["access_token"], **change))
        await self._post("/auth/logout", tokens["access_token"])
        tokens = await self._use(await self._post("/auth", username=name, password=new_password))
        await self._post("/users/me/delete", tokens["access_token"], current_password=new_password)

    async def _use(self, tokens: dict[str, Any]) -> dict[str, Any]:
        """Send mostly simple requests, refresh a few times, and return the latest tokens."""
        for _ in range(REFRESHES):
            for _ in range(HELLOS):
                await self._send("GET", "/tests/hello")
            for _ in range(SECRETS):
                await self._send("GET", "/tests/secret", tokens["access_token"])
            await self._send("GET", "/users", self._target.admin_token())
            tokens = await self._post("/auth/refresh", refresh_token=tokens["refresh_token"])
        return tokens

    async def _reset(self, address: str) -> None:
        """Replace a password with the token of a mail, and log in and out with the new one."""
        await self._post("/auth/reset", email=address)
        password = secrets.token_hex(12)
        await self._post("/auth/reset/confirmation", token=await self._mailed(address), new_password=password)
        tokens = await self._post("/auth", username=address, password=password)
        await self._post("/auth/logout", tokens["access_token"])

    async def _mailed(self, address: str) -> str:
        """Wait for the reset token in a mail. Raises BenchFailed."""
        deadline = time.monotonic() + MAIL_SECONDS
        while time.monotonic() < deadline:
            if token := self._target.mails.reset_tokens.pop(address, None):
                return token
            await asyncio.sleep(POLL_SECONDS)
        raise BenchFailed(f"no mail arrived in {MAIL_SECONDS:.0f} s")

    async def _post(self, path: str, access_token: str = "", **body: str) -> dict[str, Any]:
        content = await self._send("POST", path, access_token, body or None)
        read: dict[str, Any] = json.loads(content) if content else {}
        return read

    async def _send(self, method: str, path: str, access_token: str = "", body: dict[str, Any] | None = None) -> bytes:
        """Send a request when it is due; after a slow response, the next ones follow at once."""
        await asyncio.sleep(self._due - time.monotonic())
        self._due += CLIENTS / REQUESTS_PER_SECOND
        self.requests += self._due < self._ends
        return await self._connection.request(method, path, access_token, body)


async def apply(target: Target, addresses: Sequence[str], seconds: float) -> int:
    """Send the load for so many seconds, and return the number of requests. Raises BenchFailed."""
    clients = [Client(target, addresses[number::CLIENTS]) for number in range(CLIENTS)]
    # Spread over the duration of a sequence, so that not all clients hash passwords at the same time.
    pause = 3 * REFRESHES * (HELLOS + SECRETS) / REQUESTS_PER_SECOND
    await asyncio.gather(*(client.run(number * pause, seconds) for number, client in enumerate(clients)))
    return sum(client.requests for client in clients)
