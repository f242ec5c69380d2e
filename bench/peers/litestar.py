"""Litestar with its own JWTAuth, after its documentation.

The authentication is the middleware of the secret's route only: with `exclude`, it would still run for all routes.
"""

import os
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.connection import ASGIConnection
from litestar.security.jwt import JWTAuth, Token


@dataclass
class User:
    """The user of a token."""

    username: str


@dataclass
class Login:
    """The body of a login request."""

    username: str


async def retrieve_user_handler(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> User | None:
    """Return the token's user."""
    return User(token.sub)


jwt_auth = JWTAuth[User](retrieve_user_handler=retrieve_user_handler, token_secret=os.environ["BENCH_KEY"])


@post("/auth", status_code=200)
async def login(data: Login) -> dict[str, str]:
    """Issue a token."""
    return {"access_token": jwt_auth.create_token(identifier=data.username)}


@get("/tests/hello")
async def hello() -> dict[str, str]:
    """Return the public response."""
    return {"Hello": "World!"}


@get("/tests/secret", middleware=[jwt_auth.middleware])
async def secret(request: Request[User, Token, Any]) -> dict[str, str]:
    """Return the response for clients with a valid token."""
    return {"Hello": "Secret!"}


app = Litestar(route_handlers=[login, hello, secret])
