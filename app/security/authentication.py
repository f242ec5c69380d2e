"""Authenticate requests by their access token, and guard views."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import sanic
from sanic_jwt import scoped

from app.http.codes import Code, answers_with
from app.http.problems import Problem
from app.logs.audit import audit_repeated
from app.security.administration import NotAdministrator
from app.security.revocations import Revocations
from app.tokens.access import AccessTokens, Claims, InvalidAccessToken, UnknownKey

TOKENS_REMEMBERED = 20_000  # with a valid signature
TOKEN_REQUIRED = answers_with(
    Code.TOKEN_MISSING, Code.TOKEN_EXPIRED, Code.TOKEN_INVALID, Code.SESSION_ENDED, Code.REVOCATIONS_STALE
)
FRESH_REQUIRED = answers_with(Code.STEP_UP_REQUIRED)
ADMINISTRATOR_REQUIRED = answers_with(Code.INSUFFICIENT_SCOPE, Code.STORE_UNAVAILABLE)

Method = TypeVar("Method", bound=Callable[..., Any])
Request = sanic.Request[Any, Any]


class Authenticator:
    """Determines whose token a request presents, and whether it is valid.

    Does no I/O.
    """

    def __init__(
        self,
        access_tokens: AccessTokens,
        revocations: Revocations,
        *,
        step_up_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._revocations = revocations
        self._dropped_keys = revocations.dropped_keys
        self._step_up_seconds = step_up_seconds
        self._clock = clock
        self.read_keys: Callable[[], Awaitable[None]] = _nothing  # if there are asymmetric ones
        # A signature that was valid stays valid. The cache holds no exceptions, so invalid tokens do not fill it.
        self.decode = lru_cache(TOKENS_REMEMBERED)(access_tokens.decode)

    def authenticate(self, request: Request) -> Claims:
        """Return the claims of the request's token, without leeway.

        Raises Problem 401, or 503 without fresh news, and UnknownKey.
        """
        try:
            claims = self.decode(bearer_token(request))
        except UnknownKey:
            raise
        except InvalidAccessToken:
            raise Problem(Code.TOKEN_INVALID) from None
        if claims.exp <= self._clock():
            raise Problem(Code.TOKEN_EXPIRED)
        if self._revocations.stale():
            raise Problem(Code.REVOCATIONS_STALE)
        if claims.sid in self._revocations:
            raise Problem(Code.SESSION_ENDED)
        if self._dropped_keys and claims.kid in self._dropped_keys:
            raise Problem(Code.TOKEN_INVALID)
        return claims

    async def authenticate_with_new_keys(self, request: Request) -> Claims:
        """Authenticate after reading the keys.

        Another worker may have made one a moment ago.

        Raises Problem, and pymongo's errors.
        """
        await self.read_keys()
        try:
            return self.authenticate(request)
        except UnknownKey:
            raise Problem(Code.TOKEN_INVALID) from None

    async def claims_of(self, token: str) -> Claims | None:
        """Return the claims of a token that this service has signed.

        Also if it has expired or its session has ended. Raises pymongo's errors.
        """
        with suppress(InvalidAccessToken):
            try:
                return self.decode(token)
            except UnknownKey:
                await self.read_keys()
                return self.decode(token)
        return None

    def require_fresh(self, claims: Claims) -> None:
        """Require that the user authenticated recently (RFC 9470).

        Raises Problem 401.
        """
        if claims.auth_time < self._clock() - self._step_up_seconds:
            raise Problem(Code.STEP_UP_REQUIRED, challenge={"max_age": str(self._step_up_seconds)})


async def _nothing() -> None:
    """Read no keys."""


def protected(method: Method) -> Method:
    """Require a valid access token, and put its claims on the request.

    Replaces sanic-jwt's decorator of this name, which copies all arguments deeply and reads its settings on every call:
    longer than the rest of a small request.
    """

    @wraps(method)
    def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        try:
            request.ctx.claims = request.app.ctx.authenticator.authenticate(request)
        except UnknownKey:
            return with_new_keys(view, request, *args, **kwargs)
        return method(view, request, *args, **kwargs)

    async def with_new_keys(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        request.ctx.claims = await request.app.ctx.authenticator.authenticate_with_new_keys(request)
        return await method(view, request, *args, **kwargs)

    return TOKEN_REQUIRED(cast("Method", guarded))


def fresh(method: Method) -> Method:
    """Require a recent authentication, beside what the guard below requires.

    A stolen access token alone cannot change how its user logs in (RFC 9470, OWASP ASVS 7.5.1).
    """

    @wraps(method)
    async def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        request.app.ctx.authenticator.require_fresh(claims(request))
        return await method(view, request, *args, **kwargs)

    return FRESH_REQUIRED(cast("Method", guarded))


def administrators(method: Method) -> Method:
    """Require an administrator.

    By the token's scope, and by the access level in the database, which may be lower by now.
    """

    @wraps(method)
    async def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        await _require_admin_scope(request)
        try:
            await request.app.ctx.administration.require_administrator(claims(request).sub)
        except NotAdministrator:
            audit_repeated("forbidden", of=claims(request).sub, user_id=claims(request).sub)
            raise
        return await method(view, request, *args, **kwargs)

    return TOKEN_REQUIRED(ADMINISTRATOR_REQUIRED(cast("Method", guarded)))


@scoped("admin")
async def _require_admin_scope(_: Request) -> None:
    """Do nothing; sanic-jwt authenticates the request and compares the scopes."""


def claims(request: Request) -> Claims:
    """Return the claims that a guard has put on the request."""
    verified: Claims = request.ctx.claims
    return verified


def bearer_token(request: Request) -> str:
    """Return the token of the Authorization header.

    RFC 9110 section 11.1: the scheme's name is case-insensitive; RFC 6750 section 2.1: spaces, then the token. Raises
    Problem 401.
    """
    headers = request.headers.getall("authorization", [])
    if len(headers) > 1:
        raise Problem(Code.TOKEN_INVALID, "There is more than one Authorization header.")
    scheme, _, token = headers[0].partition(" ") if headers else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip(" "):
        raise Problem(Code.TOKEN_MISSING)
    return token.strip(" ")
