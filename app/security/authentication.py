"""Authenticate requests by their access token, and guard views."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import sanic
from sanic_jwt import scoped

from app.http.codes import FRESH, Code, answers_with
from app.http.problems import Problem
from app.logs.audit import audit_repeated
from app.models.users import Access
from app.security.administration import Actor, NotAdministrator
from app.security.cookie_mode import CookieMode, has_bearer
from app.security.freshness import Freshness, with_factor
from app.security.revocations import Revocations
from app.tokens.access import AccessTokens, Claims, InvalidAccessToken, UnknownKey

TOKENS_REMEMBERED = 20_000  # with a valid signature
TOKEN_REQUIRED = answers_with(
    Code.TOKEN_MISSING,
    Code.TOKEN_EXPIRED,
    Code.TOKEN_INVALID,
    Code.SESSION_ENDED,
    Code.CROSS_SITE_REQUEST,
    Code.REVOCATIONS_STALE,
)
FRESH_REQUIRED = answers_with(Code.STEP_UP_REQUIRED)
FACTOR_REQUIRED = answers_with(Code.SECOND_FACTOR_ENROLMENT_REQUIRED)
ADMINISTRATOR_REQUIRED = answers_with(
    Code.INSUFFICIENT_SCOPE, Code.SECOND_FACTOR_ENROLMENT_REQUIRED, Code.STORE_UNAVAILABLE
)

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
        freshness: Freshness,
        cookie_mode: CookieMode,
        factor_required_of: Access | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Require a second factor of all users from an access level on, if there is one."""
        self._revocations = revocations
        self._dropped_keys = revocations.dropped_keys
        self.freshness = freshness
        self._cookie_mode = cookie_mode
        self._scope_with_factor = factor_required_of.name.lower() if factor_required_of is not None else None
        self._clock = clock
        self.read_keys: Callable[[], Awaitable[None]] = _nothing  # if there are asymmetric ones
        self.has_factor: Callable[[str], Awaitable[bool]] = _never  # of the user with an id
        # A signature that was valid stays valid. The cache holds no exceptions, so invalid tokens do not fill it.
        self.decode = lru_cache(TOKENS_REMEMBERED)(access_tokens.decode)

    def authenticate(self, request: Request) -> Claims:
        """Return the claims of the request's token, without leeway.

        Raises Problem 401, or 503 without fresh news, and UnknownKey.
        """
        try:
            claims = self.decode(self._presented(request))
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

    def _presented(self, request: Request) -> str:
        """Return the token of the header, or without one that of the cookie. Raises Problem 401 or 403."""
        return self._cookie_mode.access_token(request) or bearer_token(request)

    def presents_token(self, request: Request) -> bool:
        """Return whether a request has an access token, valid or not. Raises Problem 401 or 403."""
        return has_bearer(request) or self._cookie_mode.access_token(request) is not None

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

    def lacks_factor(self, claims: Claims) -> bool:
        """Return whether a required second factor is missing.

        By the token, which may not show one that was just enrolled.
        """
        scope = self._scope_with_factor
        return scope is not None and scope in claims.scopes and not with_factor(claims)

    async def require_enrolled(self, claims: Claims) -> None:
        """Require a second factor of those who must have one.

        They may have enrolled it in this session.

        Raises Problem 403, and pymongo's errors.
        """
        if self.lacks_factor(claims) and not await self.has_factor(claims.sub):
            raise Problem(Code.SECOND_FACTOR_ENROLMENT_REQUIRED)


async def _nothing() -> None:
    """Read no keys."""


async def _never(_: str) -> bool:
    return False


def protected(method: Method) -> Method:
    """Require a valid access token, and a second factor of those who must have one.

    Replaces sanic-jwt's decorator of this name, which copies all arguments deeply and reads its settings on every call:
    longer than the rest of a small request.
    """
    return FACTOR_REQUIRED(_authenticated(method, enrolled=True))


def authenticated(method: Method) -> Method:
    """Require a valid access token.

    Also of users who must enrol a second factor first (REQUIRE_SECOND_FACTOR).

    For what they need to do so, and for logging out.
    """
    return _authenticated(method, enrolled=False)


def _authenticated(method: Method, *, enrolled: bool) -> Method:
    """Require a valid access token, and put its claims on the request. Waits for nothing, except in rare cases."""

    @wraps(method)
    def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        authenticator: Authenticator = request.app.ctx.authenticator
        try:
            request.ctx.claims = authenticator.authenticate(request)
        except UnknownKey:
            return with_new_keys(view, request, *args, **kwargs)
        if enrolled and authenticator.lacks_factor(request.ctx.claims):
            return if_enrolled(view, request, *args, **kwargs)
        return method(view, request, *args, **kwargs)

    async def with_new_keys(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        request.ctx.claims = await request.app.ctx.authenticator.authenticate_with_new_keys(request)
        return await if_enrolled(view, request, *args, **kwargs)

    async def if_enrolled(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        if enrolled:
            await request.app.ctx.authenticator.require_enrolled(claims(request))
        return await method(view, request, *args, **kwargs)

    return TOKEN_REQUIRED(cast("Method", guarded))


def fresh(method: Method) -> Method:
    """Require a recent authentication, beside what the guard above requires.

    A stolen access token alone cannot change how its user logs in (RFC 9470, OWASP ASVS 7.5.1).
    """
    return _fresh(method, factor=False)


def fresh_with_factor(method: Method) -> Method:
    """Require a recent authentication with a second factor, beside what the guard above requires."""
    return _fresh(method, factor=True)


def _fresh(method: Method, *, factor: bool) -> Method:
    @wraps(method)
    async def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        request.app.ctx.authenticator.freshness.require(claims(request), factor=factor)
        return await method(view, request, *args, **kwargs)

    setattr(guarded, FRESH, factor)
    return FRESH_REQUIRED(cast("Method", guarded))


def administrators(method: Method) -> Method:
    """Require an administrator.

    By the token's scope, and by the access level in the database, which may be lower by now.
    """

    @wraps(method)
    async def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        await _require_admin_scope(request)
        await request.app.ctx.authenticator.require_enrolled(claims(request))
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


def actor(request: Request) -> Actor:
    """Return who administers: the user of the claims, in its session."""
    me = claims(request)
    return Actor(me.sub, me.sid)


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
