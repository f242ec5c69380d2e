"""A worker's stores and services: opened when it starts, closed when it stops, found by views at `app.ctx`."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import sanic
from pymongo.errors import PyMongoError
from sanic import Sanic
from sanic.config import Config as SanicConfig
from sanic.log import logger

from app import metrics
from app.background import repeat
from app.database.client import Database
from app.database.failures import summary
from app.database.proven import ProvenReader
from app.database.reports import Reports
from app.http.client import current_context
from app.http.cors import Cors
from app.logs import audit
from app.models import attempts, sessions, users
from app.models.attempts import MemoryAttempts, MongoAttempts
from app.models.sessions import Sessions
from app.models.users import Users
from app.security.access_tokens import AccessTokens
from app.security.accounts import Accounts
from app.security.administration import Administration
from app.security.authentication import Authenticator
from app.security.credentials import CredentialsVerifier
from app.security.generations import EndingsUnfinished, Generations, UserDocuments
from app.security.logins import Logins
from app.security.passwords import Passwords
from app.security.refresh_tokens import RefreshTokens
from app.security.revocations import Revocations
from app.security.throttle import Limits, Throttle
from app.server.connections import Connections
from app.server.descriptors import capacity
from config import Config
from config.product import NAME, SLUG

FEED_SHARE = 0.4  # of REVOCATION_STALE_SECONDS, for one look at the feed
INTERRUPTED_POLLS = 3  # between two looks for interrupted logouts: they are rare, and were not acknowledged


class Context:
    """The stores and services of a worker."""

    database: Database
    feed: ProvenReader
    users: Users
    sessions: Sessions
    passwords: Passwords
    throttle: Throttle
    revocations: Revocations
    authenticator: Authenticator
    credentials: CredentialsVerifier
    generations: Generations
    logins: Logins
    accounts: Accounts
    administration: Administration
    cors: Cors | None = None
    draining = False  # the worker is stopping, and serves until the load balancer has noticed

    def __init__(self) -> None:
        self.connections = Connections()
        self._background: list[asyncio.Task[None]] = []
        self.reports = Reports()

    async def open(self, config: Config) -> None:
        """Open everything on the running event loop.

        An unavailable database is waited for while serving.
        """
        self._open_stores(config)
        self._open_services(config)
        self.connections = Connections(capacity(config.CONNECTIONS_PER_WORKER))
        await self.passwords.prepare()
        await self._measure()
        await self._attempt(self.database.check, self._follow)
        self._background = [
            asyncio.create_task(
                repeat(task, seconds=polls * config.REVOCATION_POLL_SECONDS, name=name, reports=self.reports)
            )
            for name, task, polls in (
                ("following revocations", self._follow, 1),
                ("finishing interrupted logouts", self._finish_interrupted, INTERRUPTED_POLLS),
                ("measuring", self._measure, 1),
                ("logging repeated events", self._log_repeated, 1),
            )
        ]

    async def close(self) -> None:
        """Stop the background tasks, and close the hashing threads and the database."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        audit.flush(everything=True)
        self.passwords.close()
        await self.feed.close()
        await self.database.close()

    def _open_stores(self, config: Config) -> None:
        self.database = Database(
            config.MONGO_URI,
            default_name=NAME,
            timeout_seconds=config.MONGO_TIMEOUT_SECONDS,
            request_context=current_context,
        )
        self.users = Users(self.database.collection("users", users.INDEXES), self.database.collection("locks"))
        # Its limit leaves room for a second try before news are stale.
        self.feed = ProvenReader(
            config.MONGO_URI,
            default_name=NAME,
            collection="sessions",
            seconds=FEED_SHARE * config.REVOCATION_STALE_SECONDS,
        )
        self.sessions = Sessions(
            self.database.collection("sessions", sessions.INDEXES),
            self.feed,
            idle_seconds=config.REFRESH_TOKEN_SECONDS,
            absolute_seconds=config.SESSION_SECONDS,
            grace_seconds=config.REFRESH_GRACE_SECONDS,
            per_user=config.SESSIONS_PER_USER,
        )

    def _open_services(self, config: Config) -> None:
        keys = signing_keys(config)
        self.passwords = Passwords(
            min_length=config.PASSWORD_MIN_LENGTH,
            product=NAME,
            threads=config.PASSWORD_HASHING_THREADS,
            queue=config.PASSWORD_HASHING_QUEUE,
            places=config.PASSWORD_HASHING_PLACES,
        )
        self.throttle = self._throttle(config)
        access_tokens = AccessTokens(
            keys,
            issuers=[config.ISSUER, *config.PREVIOUS_ISSUERS],
            audience=SLUG,
            lifetime_seconds=config.ACCESS_TOKEN_SECONDS,
        )
        self.revocations = Revocations(
            self.sessions,
            stale_seconds=config.REVOCATION_STALE_SECONDS,
            lifetime_seconds=config.ACCESS_TOKEN_SECONDS,
            overlap_seconds=config.MONGO_TIMEOUT_SECONDS,
        )
        self.authenticator = Authenticator(access_tokens, self.revocations)
        # Every store with documents of users is in this list, from which the documents of a deleted user are removed.
        stores: list[UserDocuments] = [self.sessions]
        self.generations = Generations(self.users, self.sessions, self.revocations, self.database.transactions, stores)
        self.credentials = CredentialsVerifier(self.users, self.passwords, self.throttle)
        self.logins = Logins(
            self.users,
            self.sessions,
            self.revocations,
            self.credentials,
            self.database.transactions,
            access_tokens,
            RefreshTokens(keys, product=SLUG),
        )
        self.accounts = Accounts(
            self.users, self.sessions, self.passwords, self.throttle, self.credentials, self.logins, self.generations
        )
        self.administration = Administration(self.users, self.sessions, self.passwords, self.generations)

    def _throttle(self, config: Config) -> Throttle:
        in_memory = config.THROTTLE_STORAGE == "memory"
        return Throttle(
            MemoryAttempts() if in_memory else MongoAttempts(self.database.collection("attempts", attempts.INDEXES)),
            Limits(
                pair=config.LOGIN_FAILURES_PER_PAIR,
                account=config.LOGIN_FAILURES_PER_ACCOUNT,
                address=config.LOGIN_FAILURES_PER_ADDRESS,
                logins=config.LOGINS_PER_ACCOUNT,
                registrations=config.REGISTRATIONS_PER_ADDRESS,
            ),
        )

    async def _attempt(self, *steps: Callable[[], Awaitable[None]]) -> None:
        """Run steps that need the database, each whatever the others raise."""
        for error in await asyncio.gather(*(step() for step in steps), return_exceptions=True):
            if isinstance(error, PyMongoError):
                reason = summary(error)
                if self.reports.is_new(reason):
                    logger.error("the database cannot serve yet, serving what needs none: %s", reason)
            elif error:
                raise error

    async def _follow(self) -> None:
        """Follow the ended sessions; protected routes respond from the first time on.

        Interrupted ends of sessions are finished before, or a restarted worker would accept their tokens for a moment.
        A user whose sessions cannot be ended does not stop the others.
        """
        try:
            if self.revocations.age() == math.inf:
                with suppress(EndingsUnfinished):
                    await self._finish_interrupted()
            await self.revocations.catch_up()
        finally:
            metrics.revocations_proven_at.set(self.revocations.proven_at)

    async def _finish_interrupted(self) -> None:
        await self.logins.finish_interrupted()
        await self.generations.finish_interrupted()

    async def _log_repeated(self) -> None:
        audit.flush()

    async def _measure(self) -> None:
        metrics.hashing_waiting.set(self.passwords.turns.waiting)
        metrics.revocations_known.set(len(self.revocations))
        self.connections.measure()


App: TypeAlias = Sanic[SanicConfig, Context]
Request: TypeAlias = sanic.Request[App, Any]


def signing_keys(config: Config) -> list[bytes]:
    """Return the key that signs, then those that only verify."""
    return [key.encode() for key in (config.JWT_SECRET_KEY, *config.JWT_PREVIOUS_SECRET_KEYS)]
