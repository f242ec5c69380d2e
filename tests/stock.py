"""An app with unmodified sanic-jwt and the tutorial's routes, which regression tests compare with this service."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import jwt
from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.exceptions import BadRequest
from sanic.response import json
from sanic_jwt import Initialize, protected, scoped

from app.server.connections import Connections

ISSUER = "stock"
USER = {"user_id": "1", "username": "alice"}
SCOPES = ["user"]
SETTINGS: dict[str, str | bool | int | float | None] = {
    "AUTO_EXTEND": False,  # sanic-ext has one OpenAPI description per process, which is that of this service
    # The library is known to use deprecated functions. Without this setting Sanic overrides the filter of pytest.
    "DEPRECATION_FILTER": "ignore",
}

App = Sanic[Any, Any]
Document = dict[str, Any]


def add_routes(app: App) -> None:
    """Add protected routes that the tutorial does not have, the same to both apps."""
    app.add_route(scoped("admin")(_greet), "/tests/admin", name="admin")
    app.add_route(protected(do_protection=False)(_fail), "/tests/careless", name="careless")


def create_stock_app(secret: str, **settings: Any) -> App:
    """Create an app as in the documentation of sanic-jwt, with refresh tokens, scopes, and two of its claims."""
    refresh_tokens: dict[str, str] = {}

    async def authenticate(_: Request) -> Document:
        return USER

    async def retrieve_user(_: Request, payload: Document | None) -> Document | None:
        return USER if payload else None

    async def store_refresh_token(user_id: str, refresh_token: str, **_: Any) -> None:
        refresh_tokens[user_id] = refresh_token

    async def retrieve_refresh_token(user_id: str, **_: Any) -> str | None:
        return refresh_tokens.get(user_id)

    async def add_scopes_to_payload(_: Document) -> list[str]:
        return SCOPES

    app: App = Sanic("stock", config=Config(SETTINGS, env_prefix=None))
    app.ctx.refresh_tokens = refresh_tokens
    app.ctx.connections = Connections()  # for the protocol of this service, which is that of the whole process
    Initialize(
        app,
        authenticate=authenticate,
        retrieve_user=retrieve_user,
        store_refresh_token=store_refresh_token,
        retrieve_refresh_token=retrieve_refresh_token,
        add_scopes_to_payload=add_scopes_to_payload,
        secret=secret,
        claim_iss=ISSUER,
        claim_iat=True,
        **settings,
    )
    app.add_route(protected()(_greet), "/tests/secret", name="secret")
    app.add_route(_inject, "/tests/injected", name="injected")
    add_routes(app)
    return app


def stock_forge(secret: str) -> Callable[..., str]:
    """Return a function that signs a changed copy of the stock app's token; a claim or header of None is left out."""

    def forge(
        claims: Document | None = None,
        headers: Document | None = None,
        *,
        key: str = secret,
        algorithm: str = "HS256",
    ) -> str:
        now = int(time.time())
        issued = {"user_id": USER["user_id"], "iss": ISSUER, "iat": now, "exp": now + 900, "scopes": SCOPES}
        # As in this service, each token is unique.
        changed = {**issued, "jti": secrets.token_urlsafe(16), **(claims or {})}
        return jwt.encode({k: v for k, v in changed.items() if v is not None}, key, algorithm, headers=headers)

    return forge


async def _greet(_: Request) -> HTTPResponse:
    return json({"Hello": "Secret!"})


async def _fail(_: Request) -> HTTPResponse:
    raise BadRequest


async def _inject(request: Request) -> HTTPResponse:
    """Pass an object that cannot be copied to a protected handler, as dependency injection does with a client."""

    async def handler(request: Request, **_: object) -> HTTPResponse:
        return await _greet(request)

    response: HTTPResponse = await protected()(handler)(request, client=threading.Lock())
    return response
