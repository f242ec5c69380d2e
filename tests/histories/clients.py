"""The clients of a history: they follow their programs, send requests, and record the outcomes."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from random import Random

from tests.conftest import Document
from tests.histories.connections import Connections
from tests.histories.knowledge import Knowledge, KnownSession, KnownUser
from tests.histories.programs import PATIENCE_SECONDS, Program, programs
from tests.histories.records import OK, History, Kind, Operation
from tests.histories.requests import Request, Requests, answered, log_in, plain, refresh

CLIENTS = (4, 5, 6)  # of a history
MEETING_SECONDS = 10.0  # how long the clients of a history wait for each other
LOGINS = 2  # of each user, before the programs
PROBES = 4  # requests at the same time, after the last fault


class Clients:
    """The clients of one history. `urls` are the services."""

    def __init__(self, connections: Connections, urls: list[str], users: list[KnownUser]) -> None:
        self._connections = connections
        self._urls = urls
        self._users = users
        self._knowledge = Knowledge(users)
        self._requests = Requests(users)
        self._operations: list[Operation] = []

    @property
    def history(self) -> History:
        """All that was recorded."""
        users = {user.name: user.access for user in self._users if user.id}
        return History(users, tuple(sorted(self._operations, key=lambda one: one.invoked)))

    async def log_in(self) -> None:
        """Open sessions for each user, before the programs."""
        users = [user for user in self._users if user.id for _ in range(LOGINS)]
        await self._send_all(self._login(user, number) for number, user in enumerate(users))

    async def run(self, random: Random) -> None:
        """Follow random programs concurrently."""
        several = programs(random, clients=random.choice(CLIENTS), users=len(self._users))
        meetings = [asyncio.Barrier(len(several)) for _ in several[0]]
        await asyncio.gather(
            *(self._follow(f"client {number}", program, meetings) for number, program in enumerate(several, 1))
        )

    def settled(self, since: float) -> None:
        """Record that workers had enough time, since the last fault, to finish all ends of sessions."""
        settle = self._requests.operation(Kind.SETTLE, "checker")
        self._operations.append(replace(settle, invoked=since, ended=time.monotonic(), outcome=OK))

    async def probe(self) -> None:
        """Present all tokens, look at all users, and log in, after the last fault."""
        sessions = [(user, session) for user in self._users for session in user.sessions]
        await self._send_all(self._plain(Kind.SECRET, *one, number) for number, one in enumerate(sessions))
        await self._send_all(self._refresh(*one, number) for number, one in enumerate(sessions))
        active = {user.name: (user, session) for user, session in sessions if not session.ended}.values()
        for kind in (Kind.SESSIONS, Kind.ME):
            await self._send_all(self._plain(kind, *one, number) for number, one in enumerate(active))
        await self._send_all(self._login(user, number) for number, user in enumerate(self._users))

    async def _follow(self, client: str, program: Program, meetings: list[asyncio.Barrier]) -> None:
        for steps, meeting in zip(program, meetings, strict=True):
            token: str | None = None  # the refresh token that was sent last in this round
            for step in steps:
                if step.meeting:
                    await _meet(meeting)
                await asyncio.sleep(step.pause)
                request = self._requests.of(step, client, token if step.again else None)
                if request.operation.kind is Kind.REFRESH and request.body:
                    token = request.body["refresh_token"]
                await self._send(request, step.patience)

    def _login(self, user: KnownUser, number: int) -> Request:
        return log_in(self._operation(Kind.LOGIN, user, number), user.passwords[-1])

    def _refresh(self, user: KnownUser, session: KnownSession, number: int) -> Request:
        return refresh(self._operation(Kind.REFRESH, user, number), session.refresh_tokens[-1])

    def _plain(self, kind: Kind, user: KnownUser, session: KnownSession, number: int) -> Request:
        return plain(self._operation(kind, user, number), session)

    def _operation(self, kind: Kind, user: KnownUser, number: int) -> Operation:
        return self._requests.operation(kind, "checker", user.name, number % len(self._urls))

    async def _send_all(self, requests: Iterable[Request]) -> None:
        """Send requests, a few at the same time."""
        free = asyncio.Semaphore(PROBES)

        async def send(request: Request) -> None:
            async with free:
                await self._send(request, PATIENCE_SECONDS)

        await asyncio.gather(*(send(request) for request in requests))

    async def _send(self, request: Request, patience: float) -> None:
        """Send a request, record its outcome and learn from it. After `patience` seconds the client disconnects."""
        operation, body = replace(request.operation, invoked=time.monotonic()), Document()
        with suppress(OSError, EOFError):  # TimeoutError is an OSError
            async with asyncio.timeout(patience):
                response = await self._connections.request(
                    request.method, self._urls[operation.service], request.path, token=request.token, body=request.body
                )
            operation, body = answered(operation, response)
        operation = replace(operation, ended=time.monotonic())
        self._operations.append(operation)
        self._knowledge.learn(operation, body)


async def _meet(meeting: asyncio.Barrier) -> None:
    """Wait for the other clients, but not long."""
    with suppress(TimeoutError, asyncio.BrokenBarrierError):
        async with asyncio.timeout(MEETING_SECONDS):
            await meeting.wait()
