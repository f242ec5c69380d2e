"""What a view finds on its request: the typed app.ctx, the caller's claims, and where the caller is."""

import asyncio
from typing import Any, TypeAlias

import sanic
from sanic import Sanic
from sanic.config import Config as SanicConfig

from app.database.client import Database
from app.database.collection import be_patient_once
from app.http.client import address, user_agent
from app.models.sessions import Client
from app.models.users import Users
from app.security.access_tokens import Claims
from app.security.authentication import Authentication
from app.security.credentials import Credentials
from app.security.logins import Logins
from app.security.passwords import Passwords
from app.security.revocations import Revocations
from app.security.throttle import Throttle


class Context:
    """Stores and services of a worker, set when it starts."""

    auth: Authentication
    database: Database
    users: Users
    passwords: Passwords
    credentials: Credentials
    throttle: Throttle
    revocations: Revocations
    logins: Logins
    background: list[asyncio.Task[None]]


App: TypeAlias = Sanic[SanicConfig, Context]
Request: TypeAlias = sanic.Request[App, Any]


def begin(_: Request) -> None:
    """Begin a request that may ask the database; for `on_request` of every blueprint whose views do."""
    be_patient_once()


def claims(request: Request) -> Claims:
    """Return what `protected` has verified."""
    verified: Claims = request.ctx.claims
    return verified


def client(request: Request) -> Client:
    """Return where the caller is, as its owner will see it in the list of sessions."""
    return Client(address=address(request), user_agent=user_agent(request))
