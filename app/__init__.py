"""The service: where its parts meet."""

import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sanic import Sanic
from sanic.config import DEFAULT_CONFIG
from sanic.config import Config as SanicConfig
from sanic.log import logger

from app import capabilities, commands, logs, pages
from app.context import App, Context, signing_keys
from app.database.client import inspect
from app.http import automatic_methods, cors
from app.http.problems import ProblemHandler
from app.models import factors as factor_store
from app.models import keys as key_store
from app.models import users as user_store
from app.openapi import page
from app.openapi.document import document
from app.refusals import refusal
from app.security import sanic_jwt_adapter
from app.server import descriptors, internals, startup, supervisor, workers
from app.server.routing import Router
from app.tokens.key_set import encryption_key_name
from app.views import auth, discovery, factors, hello, oauth, operations, recovery, registration, users
from config import Config, ConfigurationError, load
from config.environments import ProductionConfig
from config.product import NAME, SECOND_FACTOR_GRANT

FOR_VIEWS = {"METRICS", "METRICS_TOKEN", "OAUTH_PASSWORD_GRANT", "PUBLIC_URL", "STEP_UP_SECONDS"}
VIEWS = (hello, auth, users, factors, oauth, discovery, operations)


def create_app(args: object = None, *, config: Config | None = None, name: str = NAME) -> App:
    """Make the service.

    `args` comes from Sanic's command line. Each app of a process needs a `name` of its own.

    Exits with a message if the settings do not allow a start: for an exception Sanic would show a traceback, and exit
    with the code of success.
    """
    workers.enter()
    internals.require()
    workers.choose_start_method(args)
    passed_over: list[str] = []
    config = config or _load(args, passed_over)
    capabilities.load(config)
    if args is not None:  # a process of the service or a command; others keep their own forms
        logs.take_over(config.LOG_FORMAT)
    context = Context()
    app: App = Sanic(
        name,
        config=_sanic_config(config),
        ctx=context,
        router=Router(),
        error_handler=ProblemHandler(refusal, context.reports.is_new),
        log_config=logs.configuration(config.LOG_FORMAT, config.AUDIT_FILE),
    )
    if multiprocessing.parent_process() is None:
        for warning in passed_over:
            logger.warning(warning)
    if getattr(args, "single", False):  # otherwise the main process checks, which a single process lacks
        startup.check_single_process(args)
        _check(config)
        descriptors.prepare(config.CONNECTIONS_PER_WORKER)
    supervisor.supervise(
        app,
        drain_seconds=config.DRAIN_SECONDS,
        arrival_seconds=config.REQUEST_ARRIVAL_SECONDS,
        connections=config.CONNECTIONS_PER_WORKER,
        check=lambda: _check(config),
    )
    cors.enable(
        app,
        origins=config.CORS_ORIGINS,
        request_headers=config.CORS_HEADERS,
        credentials=config.cookies_enabled,
    )
    sanic_jwt_adapter.initialize(app, signing_keys(config)[0])
    _add_routes(app, config)
    automatic_methods.add(app)
    names = {"ISSUER": config.issuers[0], "SECOND_FACTOR_GRANT": SECOND_FACTOR_GRANT}
    app.config.update(config.model_dump(include=FOR_VIEWS) | names)

    @app.before_server_start
    async def start(app: App) -> None:
        _refuse_asgi(app)
        await app.ctx.open(config)
        app.ctx.send_mails()

    @app.before_server_stop
    async def stop_waiting(app: App) -> None:
        app.ctx.stop_waiting()

    @app.after_server_stop
    async def stop(app: App) -> None:
        await app.ctx.close()

    @asynccontextmanager
    async def services() -> AsyncIterator[Context]:
        await app.ctx.open(config)
        try:
            yield app.ctx
        finally:
            await app.ctx.close()

    commands.register(app, services)
    return app


def _load(args: object, passed_over: list[str]) -> Config:
    """Load the settings, and append what they pass over.

    Exits with a message if they, or the options of the command line, do not allow a start.
    """
    try:
        config = load(debug=any(getattr(args, flag, False) for flag in ("debug", "dev")), warn=passed_over.append)
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    if reason := startup.option_error(args):
        raise SystemExit(reason)
    if isinstance(config, ProductionConfig) and config.THROTTLE_STORAGE == "memory" and startup.workers_of(args) > 1:
        raise SystemExit(str(ConfigurationError(["THROTTLE_STORAGE: memory is only for one worker: each would count"])))
    return config


def _add_routes(app: App, config: Config) -> None:
    """Add the views, the pages and the documentation, as the settings say."""
    for view in (recovery if config.SMTP_URL else registration, *VIEWS):
        app.blueprint(view.blueprint)
    if config.PAGES and (config.SMTP_URL or config.cookies_enabled):
        pages.serve(app, mail=bool(config.SMTP_URL), cookies=config.cookies_enabled, passkeys=config.passkeys_enabled)
    if config.DOCS:
        page.serve(app, document)


def _check(config: Config) -> None:
    """Check before workers start whether the database can ever serve.

    Exits with a message if not.
    """
    keys = [config.ENCRYPTION_KEY or "", *config.ENCRYPTION_PREVIOUS_KEYS]
    names = [encryption_key_name(key.encode()) for key in keys]
    reason, warning = inspect(
        config.MONGO_URI,
        default_name=NAME,
        timeout_seconds=config.MONGO_TIMEOUT_SECONDS,
        refuse=lambda database: (
            user_store.startup_error(database)
            or key_store.startup_error(database, names)
            or factor_store.startup_error(database, names)
        ),
        warn=user_store.startup_warning,
    )
    if reason:
        raise SystemExit(str(ConfigurationError([f"MONGO_URI: {reason}"])))
    if warning:
        logger.warning("%s", warning)


def _refuse_asgi(app: App) -> None:
    """Refuse to start under another server, where promises would vanish silently. Raises RuntimeError.

    Headers such as no-store, request ids, metrics, the access log and the limits on slow requests and framing are part
    of app/server. The test client for ASGI is an exception.
    """
    if app.asgi and not Sanic.test_mode:
        raise RuntimeError("this service runs on Sanic's own server only: sanic app:create_app --workers=2")


def _sanic_config(config: Config) -> SanicConfig:
    """Return those settings that are Sanic's own, without its own environment variables."""
    own = {name: value for name, value in config.model_dump().items() if name in DEFAULT_CONFIG}
    return SanicConfig(own | {"FALLBACK_ERROR_FORMAT": "json"}, env_prefix=None)


app = create_app  # what `sanic app` looks for; Sanic calls a function that it finds there
