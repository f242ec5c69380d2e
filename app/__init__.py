"""The service: where its parts meet."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from pymongo.errors import PyMongoError
from sanic import Sanic
from sanic.config import DEFAULT_CONFIG
from sanic.config import Config as SanicConfig
from sanic.log import logger

from app import commands, logs, metrics
from app.background import repeat
from app.context import App, Context
from app.database.client import Database, objection
from app.database.failures import trouble
from app.database.lock import Lock
from app.http import cors
from app.http.problems import ProblemHandler
from app.models import attempts, sessions, users
from app.models.attempts import OwnAttempts, SharedAttempts
from app.models.sessions import Sessions
from app.models.users import Users
from app.openapi import description, page
from app.security.access_tokens import AccessTokens
from app.security.authentication import initialize
from app.security.credentials import Credentials
from app.security.logins import Logins
from app.security.passwords import Passwords
from app.security.refresh_tokens import RefreshTokens
from app.security.revocations import Revocations
from app.security.throttle import Limits, Throttle
from app.server import supervisor
from app.views import auth, hello, operations
from app.views import users as user_views
from config import Config, ConfigurationError, load

NAME = "sanic_api_demo"


def create_app(args: object = None, *, config: Config | None = None) -> App:
    """Make the service; `args` is what Sanic's command line was given.

    Exits with a message if the settings do not allow a start. Of an exception Sanic would show where in the
    code it came from, and end with the exit code of success.
    """
    try:
        config = config or load(debug=any(getattr(args, flag, False) for flag in ("debug", "dev")))
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    app: App = Sanic(
        NAME,
        config=_sanic_config(config),
        ctx=Context(),
        error_handler=ProblemHandler(),
        log_config=logs.configuration(config.LOG_FORMAT),
    )
    if getattr(args, "single", False):
        _check(config)  # elsewhere the main process does, which there is none of
    supervisor.supervise(
        app,
        drain_seconds=config.DRAIN_SECONDS,
        arrival_seconds=config.REQUEST_ARRIVAL_SECONDS,
        check=lambda: _check(config),
    )
    cors.enable(app, cors_origins=config.CORS_ORIGINS)
    page.serve(app, description.document)
    keys = [key.encode() for key in (config.JWT_SECRET_KEY, *config.JWT_PREVIOUS_SECRET_KEYS)]
    initialize(app, keys[0])
    for view in (hello, auth, user_views, operations):
        app.blueprint(view.blueprint)

    @app.before_server_start
    async def start(app: App) -> None:
        await _open(app.ctx, config, keys)

    @app.after_server_stop
    async def stop(app: App) -> None:
        await _close(app.ctx)

    @asynccontextmanager
    async def services() -> AsyncIterator[Context]:
        await _open(app.ctx, config, keys)
        try:
            yield app.ctx
        finally:
            await _close(app.ctx)

    commands.register(app, services)
    return app


def _check(config: Config) -> None:
    """Ask the database once, before there are workers, whether it can ever serve. Exits with a message if not."""
    if reason := objection(config.MONGO_URI, timeout_seconds=config.MONGO_TIMEOUT_SECONDS, inspect=users.objection):
        raise SystemExit(str(ConfigurationError([f"MONGO_URI: {reason}"])))


def _sanic_config(config: Config) -> SanicConfig:
    """Hand on those settings that are Sanic's own, and none from its own environment variables."""
    own = {name: value for name, value in config.model_dump().items() if name in DEFAULT_CONFIG}
    return SanicConfig(own | {"FALLBACK_ERROR_FORMAT": "json"}, env_prefix=None)


async def _open(ctx: Context, config: Config, keys: list[bytes]) -> None:
    """Open a worker's stores and services. A database that is away is waited for while serving."""
    ctx.database = Database(config.MONGO_URI, timeout_seconds=config.MONGO_TIMEOUT_SECONDS)
    ctx.users = Users(
        ctx.database.collection("users", users.INDEXES),
        Lock(ctx.database.collection("locks"), "administrators", seconds=config.MONGO_TIMEOUT_SECONDS),
    )
    session_store = Sessions(
        ctx.database.collection("sessions", sessions.INDEXES),
        idle_seconds=config.REFRESH_TOKEN_SECONDS,
        absolute_seconds=config.SESSION_SECONDS,
        grace_seconds=config.REFRESH_GRACE_SECONDS,
    )
    ctx.passwords = Passwords(
        min_length=config.PASSWORD_MIN_LENGTH,
        threads=config.PASSWORD_HASHING_THREADS,
        queue=config.PASSWORD_HASHING_QUEUE,
    )
    counts = (
        OwnAttempts()
        if config.THROTTLE_STORAGE == "memory"
        else SharedAttempts(ctx.database.collection("attempts", attempts.INDEXES))
    )
    ctx.throttle = Throttle(
        counts,
        Limits(
            pair=config.LOGIN_FAILURES_PER_PAIR,
            account=config.LOGIN_FAILURES_PER_ACCOUNT,
            address=config.LOGIN_FAILURES_PER_ADDRESS,
            registrations=config.REGISTRATIONS_PER_ADDRESS,
        ),
    )
    ctx.credentials = Credentials(ctx.users, ctx.passwords, ctx.throttle)
    access_tokens = AccessTokens(keys, lifetime_seconds=config.ACCESS_TOKEN_SECONDS)
    ctx.revocations = Revocations(
        session_store,
        stale_seconds=config.REVOCATION_STALE_SECONDS,
        lifetime_seconds=config.ACCESS_TOKEN_SECONDS,
        overlap_seconds=config.MONGO_TIMEOUT_SECONDS,
    )
    ctx.logins = Logins(ctx.users, session_store, ctx.revocations, access_tokens, RefreshTokens(keys))
    ctx.auth.use(access_tokens, ctx.revocations)
    await _prepare(ctx.users.prepare, session_store.prepare, counts.prepare, ctx.revocations.catch_up)
    ctx.background = _background(ctx, config.REVOCATION_POLL_SECONDS)


async def _prepare(*steps: Callable[[], Awaitable[None]]) -> None:
    """Do at once what the database is needed for, each step whatever becomes of the others."""
    for error in await asyncio.gather(*(step() for step in steps), return_exceptions=True):
        if isinstance(error, PyMongoError):
            logger.error("the database cannot serve yet, serving what needs none: %s", trouble(error))
        elif error:
            raise error


def _background(ctx: Context, seconds: float) -> list[asyncio.Task[None]]:
    """Begin what is done again and again."""
    return [
        asyncio.create_task(repeat(task, seconds=seconds, name=name))
        for name, task in (
            ("following revocations", ctx.revocations.catch_up),
            ("finishing interrupted logouts", ctx.logins.finish_interrupted),
            ("measuring", partial(_measure, ctx)),
        )
    ]


async def _measure(ctx: Context) -> None:
    metrics.hashing_waiting.set(ctx.passwords.waiting)
    metrics.revocations_known.set(len(ctx.revocations))
    metrics.revocations_age.set(ctx.revocations.age())


async def _close(ctx: Context) -> None:
    for task in ctx.background:
        task.cancel()
    await asyncio.gather(*ctx.background, return_exceptions=True)
    ctx.passwords.close()
    await ctx.database.close()


app = create_app  # what `sanic app` looks for; Sanic calls a function it finds there
