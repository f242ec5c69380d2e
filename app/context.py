"""A worker's stores and services: opened when it starts, closed when it stops, found by views at `app.ctx`."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

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
from app.http.codes import Code
from app.http.cors import Cors
from app.http.cross_site import CrossSite
from app.http.problems import Problem
from app.logs import audit
from app.models import attempts, factors, one_time_tokens, outbox, sessions, users
from app.models.attempts import Attempts, MemoryAttempts, MongoAttempts
from app.models.factors import Factors
from app.models.one_time_tokens import OneTimeTokens
from app.models.outbox import Outbox
from app.models.sessions import LONGEST_TOKEN_SECONDS, Sessions
from app.models.users import Access, Users
from app.security.accounts import Accounts
from app.security.administration import Administration
from app.security.authentication import Authenticator
from app.security.cookie_mode import CookieMode
from app.security.credentials import CredentialsVerifier
from app.security.emails import Emails
from app.security.factor_errors import SecondFactorOff
from app.security.freshness import Freshness
from app.security.generations import EndingsUnfinished, Generations, UserDocuments
from app.security.logins import Logins
from app.security.notices import Notices
from app.security.own_account import OwnAccount
from app.security.passwords import Passwords
from app.security.recovery import Recovery
from app.security.revocations import Revocations
from app.security.second_factor import SecondFactor
from app.security.step_up import StepUp
from app.security.throttle import Limits, Throttle
from app.server.connections import Connections
from app.server.descriptors import capacity
from app.tokens.access import AccessTokens
from app.tokens.key_set import KeySet
from app.tokens.one_time import Codes
from app.tokens.refresh import RefreshTokens
from config import Config
from config.product import NAME, SLUG

if TYPE_CHECKING:
    from app.capabilities.keys import Keys
    from app.capabilities.mail import Mail
    from app.security.enrolment import Enrolment
    from app.security.passkeys import Passkeys
    from app.tokens.keys import Encryption

FEED_SHARE = 0.4  # of REVOCATION_STALE_SECONDS, for one look at the feed
LOOK_POLLS = 0.9  # between two looks at the feed: with the time that they take, news arrive within one poll
INTERRUPTED_POLLS = 3  # between two looks for interrupted logouts: they are rare, and were not acknowledged


class Context:
    """The stores and services of a worker."""

    database: Database
    feed: ProvenReader
    users: Users
    sessions: Sessions
    passwords: Passwords
    attempts: Attempts
    throttle: Throttle
    revocations: Revocations
    authenticator: Authenticator
    cross_site: CrossSite
    cookie_mode: CookieMode
    credentials: CredentialsVerifier
    generations: Generations
    logins: Logins
    step_up: StepUp
    accounts: Accounts
    administration: Administration
    factors: Factors
    one_time_tokens: OneTimeTokens
    second_factor: SecondFactor
    outbox: Outbox | None = None  # this and the following three only if mail is on
    emails: Emails
    recovery: Recovery
    mail: "Mail | None" = None
    keys: "Keys | None" = None  # this and the following only with ENCRYPTION_KEY
    _enrolment: "Enrolment | None" = None
    cors: Cors | None = None
    draining = False  # the worker is stopping, and serves until the load balancer has noticed

    def __init__(self) -> None:
        self.connections = Connections()
        self._background: list[asyncio.Task[None]] = []
        self.reports = Reports()

    @property
    def enrolment(self) -> "Enrolment":
        """The use cases of second factors.

        Raises SecondFactorOff without ENCRYPTION_KEY.
        """
        if self._enrolment is None:
            raise SecondFactorOff
        return self._enrolment

    @property
    def passkeys(self) -> "Passkeys":
        """The use cases of passkeys. Raises SecondFactorOff without ENCRYPTION_KEY or PUBLIC_URL."""
        if self.second_factor.passkeys is None:
            raise SecondFactorOff
        return self.second_factor.passkeys

    async def open(self, config: Config) -> None:
        """Open everything on the running event loop.

        An unavailable database is waited for while serving.
        """
        self._open_stores(config)
        self._open_services(config)
        self.connections = Connections(capacity(config.CONNECTIONS_PER_WORKER))
        await self.passwords.prepare()
        await self._measure()
        repeated: list[tuple[str, Callable[[], Awaitable[None]], float]] = [
            ("following revocations", self._follow, LOOK_POLLS),
            ("finishing interrupted logouts", self._finish_interrupted, INTERRUPTED_POLLS),
            ("measuring", self._measure, 1),
            ("logging repeated events", self._log_repeated, 1),
        ]
        first = [self.database.check, self._follow]
        if self.keys:
            repeated.append(("following keys", self.keys.signing.follow, 1))
            first.append(self.keys.signing.follow)
        await self._attempt(*first)
        self._background = [
            asyncio.create_task(
                repeat(task, seconds=polls * config.REVOCATION_POLL_SECONDS, name=name, reports=self.reports)
            )
            for name, task, polls in repeated
        ]

    def send_mails(self) -> None:
        """Send what is in the outbox until the worker stops."""
        if self.mail:
            self._background.append(asyncio.create_task(self.mail.sender.run()))

    def stop_waiting(self) -> None:
        """Answer those who wait for news, because the worker stops."""
        if self.keys:
            self.keys.feed.close()

    async def close(self) -> None:
        """Stop the background tasks, and close the hashing threads and the database."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self.mail:
            await self.mail.sender.close()
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
        self.one_time_tokens = OneTimeTokens(self.database.collection("one_time_tokens", one_time_tokens.INDEXES))
        self.factors = Factors(self.database.collection("factors", factors.INDEXES))
        if config.SMTP_URL:
            self.outbox = Outbox(self.database.collection("outbox", outbox.INDEXES))

    def _open_services(self, config: Config) -> None:
        keys = signing_keys(config)
        self.passwords = Passwords(
            min_length=config.PASSWORD_MIN_LENGTH,
            product=NAME,
            threads=config.PASSWORD_HASHING_THREADS,
            queue=config.PASSWORD_HASHING_QUEUE,
            places=config.PASSWORD_HASHING_PLACES,
        )
        in_memory = config.THROTTLE_STORAGE == "memory"
        self.attempts = (
            MemoryAttempts() if in_memory else MongoAttempts(self.database.collection("attempts", attempts.INDEXES))
        )
        self.throttle = self._throttle(config)
        key_set = KeySet(hmac_signs=config.JWT_ALGORITHM == "HS256") if config.ENCRYPTION_KEY else None
        access_tokens = AccessTokens(
            keys,
            issuers=config.issuers,
            audience=SLUG,
            lifetime_seconds=config.ACCESS_TOKEN_SECONDS,
            key_set=key_set,
        )
        self.revocations = Revocations(
            self.sessions,
            stale_seconds=config.REVOCATION_STALE_SECONDS,
            # Other services do not know a lowered lifetime, and accept tokens of the former one.
            lifetime_seconds=LONGEST_TOKEN_SECONDS if key_set else config.ACCESS_TOKEN_SECONDS,
            overlap_seconds=config.MONGO_TIMEOUT_SECONDS,
        )
        self.cross_site = CrossSite([*([config.public_origin] if config.public_origin else []), *config.CORS_ORIGINS])
        self.cookie_mode = CookieMode(
            self.cross_site, enabled=config.cookies_enabled, refresh_seconds=config.REFRESH_TOKEN_SECONDS
        )
        freshness = Freshness(config.STEP_UP_SECONDS)
        self.authenticator = Authenticator(
            access_tokens,
            self.revocations,
            freshness=freshness,
            cookie_mode=self.cookie_mode,
            factor_required_of=Access[config.REQUIRE_SECOND_FACTOR.upper()] if config.REQUIRE_SECOND_FACTOR else None,
        )
        self.authenticator.has_factor = self._has_factor
        # Every store with documents of users is in this list, from which the documents of a deleted user are removed.
        stores: list[UserDocuments] = [self.sessions, self.one_time_tokens, self.factors]
        stores += [self.outbox] if self.outbox else []
        notices = Notices(self.outbox)
        transactions = self.database.transactions
        self.generations = Generations(self.users, self.sessions, self.revocations, transactions, stores, notices)
        encryption = _encryption(config)
        self.second_factor = SecondFactor(
            self.users, self.factors, self.one_time_tokens, encryption, self.passwords, self.throttle, notices
        )
        self.credentials = CredentialsVerifier(
            self.users,
            self.passwords,
            self.throttle,
            transactions,
            notices if config.LOGIN_NOTICES else None,
            self.second_factor,
        )
        self.logins = Logins(
            self.users,
            self.sessions,
            self.revocations,
            self.credentials,
            transactions,
            notices,
            access_tokens,
            RefreshTokens(keys, product=SLUG),
            self.one_time_tokens,
            self.second_factor,
        )
        self.step_up = StepUp(
            self.users, self.sessions, self.credentials, self.logins, transactions, self.second_factor
        )
        self.accounts = Accounts(
            self.users,
            self.sessions,
            self.passwords,
            self.throttle,
            self.credentials,
            self.logins,
            self.generations,
            transactions,
            self.outbox,
            freshness,
        )
        self.administration = Administration(self.users, self.sessions, self.passwords, self.generations)
        own_account = OwnAccount(self.users, self.sessions, transactions)
        if key_set and encryption:
            self._open_keys(config, key_set, encryption)
            self._open_enrolment(config, encryption, notices, own_account)
        if self.outbox:
            self._open_mail(config, Codes(keys, product=SLUG), self.outbox, notices, own_account)

    def _open_mail(
        self, config: Config, codes: Codes, outbox: Outbox, notices: Notices, own_account: OwnAccount
    ) -> None:
        from app.capabilities.mail import Mail

        self.emails = Emails(
            self.users,
            self.one_time_tokens,
            codes,
            outbox,
            notices,
            self.throttle,
            self.generations,
            own_account,
            self.second_factor,
        )
        self.recovery = Recovery(
            self.users,
            self.one_time_tokens,
            outbox,
            notices,
            self.passwords,
            self.throttle,
            self.generations,
            self.administration,
            self.database.transactions,
            self.second_factor,
        )
        self.mail = Mail(config, self.users, self.one_time_tokens, codes, outbox, self.attempts, self.reports)

    def _open_keys(self, config: Config, key_set: KeySet, encryption: "Encryption") -> None:
        from app.capabilities.keys import Keys

        self.keys = Keys(config, key_set, self.database, self.sessions, self.revocations, encryption)
        self.authenticator.read_keys = self.keys.signing.read_soon

    def _open_enrolment(
        self, config: Config, encryption: "Encryption", notices: Notices, own_account: OwnAccount
    ) -> None:
        from app.security.enrolment import Enrolment

        self._enrolment = Enrolment(
            self.users,
            self.factors,
            self.sessions,
            encryption,
            self.passwords,
            notices,
            self.generations,
            own_account,
            self.administration,
            product=NAME,
            enabled=config.SECOND_FACTOR,
        )
        if config.public_origin and config.passkeys_enabled:
            self._open_passkeys(config.public_origin, self._enrolment, notices, own_account)

    def _open_passkeys(self, origin: str, enrolment: "Enrolment", notices: Notices, own_account: OwnAccount) -> None:
        from app.security.passkeys import Passkeys

        self.second_factor.passkeys = Passkeys(
            origin,
            self.factors,
            self.one_time_tokens,
            self.sessions,
            self.throttle,
            notices,
            self.generations,
            own_account,
            enrolment,
            product=NAME,
        )

    async def _has_factor(self, user_id: str) -> bool:
        user = await self.users.by_id(user_id)
        return user is not None and user.second_factor

    def _throttle(self, config: Config) -> Throttle:
        return Throttle(
            self.attempts,
            Limits(
                pair=config.LOGIN_FAILURES_PER_PAIR,
                account=config.LOGIN_FAILURES_PER_ACCOUNT,
                address=config.LOGIN_FAILURES_PER_ADDRESS,
                logins=config.LOGINS_PER_ACCOUNT,
                registrations=config.REGISTRATIONS_PER_ADDRESS,
                resets=config.RESETS_PER_ADDRESS,
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
            if self.keys and self.keys.signs_with(self.revocations.dropped_keys):
                await self.keys.signing.follow()
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


def published_keys(request: Request) -> "Keys | None":
    """Return the keys for other services, if they are switched on.

    Raises Problem 503 until they are read: clients would remember an empty set for minutes.
    """
    keys = request.app.ctx.keys
    if keys and not keys.set.read:
        raise Problem(Code.UNAVAILABLE, "The keys could not be read yet. Please try again.")
    return keys


def _encryption(config: Config) -> "Encryption | None":
    """Return the encryption of stored secrets, if there is a key for it."""
    if not config.ENCRYPTION_KEY:
        return None
    from app.capabilities.encryption import encryption

    return encryption(config)


def signing_keys(config: Config) -> list[bytes]:
    """Return the key that signs, then those that only verify."""
    return [key.encode() for key in (config.JWT_SECRET_KEY, *config.JWT_PREVIOUS_SECRET_KEYS)]
