"""What a view finds on its request: the typed app.ctx, the caller's claims, and where the caller is."""

import asyncio
from typing import Any, TypeAlias

import sanic
from sanic import Sanic
from sanic.config import Config as SanicConfig

from app.database import Database
from app.models.sessions import Client
from app.models.users import Users
from app.security.access_tokens import Claims
from app.security.authentication import Authentication
from app.security.logins import Logins
from app.security.passwords import Passwords
from app.security.revocations import Revocations

USER_AGENT_LENGTH = 200


class Context:
    """Stores and services of a worker, set when it starts."""

    auth: Authentication
    database: Database
    users: Users
    passwords: Passwords
    revocations: Revocations
    logins: Logins
    background: list[asyncio.Task[None]]


App: TypeAlias = Sanic[SanicConfig, Context]
Request: TypeAlias = sanic.Request[App, Any]


def claims(request: Request) -> Claims:
    """Return what protected() has verified."""
    verified: Claims = request.ctx.claims
    return verified


def client(request: Request) -> Client:
    """Return the caller's address and user agent as they may be stored."""
    user_agent = request.headers.getone("user-agent", "")[:USER_AGENT_LENGTH]
    # Sanic keeps bytes that are no UTF-8 as lone surrogates, which no database takes.
    return Client(address=request.client_ip, user_agent=user_agent.encode("utf-8", "replace").decode())
