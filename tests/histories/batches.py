"""Batches of concurrent histories. All of a batch share its faults, and one seed for everything that is random."""

import asyncio
import secrets
import time
from contextlib import closing
from dataclasses import dataclass
from random import Random

from app.models.users import Access, User
from app.security.passwords import CONTEXT
from tests.histories.clients import Clients
from tests.histories.connections import Connections
from tests.histories.faults import injected
from tests.histories.knowledge import KnownUser
from tests.histories.programs import ADMINISTRATORS
from tests.histories.records import History, Injected
from tests.histories.requests import password_text
from tests.histories.rules import EXTRA_SECONDS
from tests.histories.services import PERIODS, System

HISTORIES = 16  # in a batch
USERS = (2, 3)  # of a history, beside its administrators
MARGIN_SECONDS = 0.2  # beyond the time after which no access token of an ended session is accepted


@dataclass(frozen=True)
class Batch:
    """The histories of a batch, its faults, and the seed that repeats both."""

    seed: int
    histories: list[History]
    faults: list[Injected]


class Batches:
    """Runs batches on a system."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._hash = CONTEXT.hash(password_text(0))

    def run(self, seed: int) -> Batch:
        """Run a batch of histories."""
        return asyncio.run(self._run(seed))

    async def _run(self, seed: int) -> Batch:
        randoms = [_random(f"{seed} {number}") for number in range(HISTORIES)]
        with closing(Connections()) as connections:
            clients = [self._clients(connections, random.choice(USERS)) for random in randoms]
            await asyncio.gather(*(one.log_in() for one in clients))
            with injected(self._system, _random(f"{seed} faults")) as faults:
                await asyncio.gather(*(one.run(random) for one, random in zip(clients, randoms, strict=True)))
            await self._settle(clients)
            await asyncio.gather(*(one.probe() for one in clients))
        return Batch(seed, [one.history for one in clients], faults)

    def _clients(self, connections: Connections, users: int) -> Clients:
        """Return the clients of a history with new users."""
        access = [Access.ADMIN] * ADMINISTRATORS + [Access.USER] * users
        new = [User.new(f"{level.name.lower()}-{secrets.token_hex(6)}", self._hash, level) for level in access]
        self._system.database.users.insert_many([user.to_document() for user in new])
        known = [KnownUser(user.username, user.id, user.access) for user in new]
        free_name = KnownUser(f"new-{secrets.token_hex(6)}", "", Access.USER)
        return Clients(connections, [service.url for service in self._system.services], [*known, free_name])

    async def _settle(self, clients: list[Clients]) -> None:
        """Wait until the system has recovered, and until no worker may accept the tokens of an ended session."""
        since = time.monotonic()
        self._system.recover()
        await asyncio.sleep(PERIODS.stale + EXTRA_SECONDS + MARGIN_SECONDS)
        for one in clients:
            one.settled(since)


def _random(seed: str) -> Random:
    return Random(seed)  # noqa: S311 - repeatable, and no secret
