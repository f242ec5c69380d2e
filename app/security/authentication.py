"""sanic-jwt's hooks, each put right: read the token, believe it once, look at the clock and the revocations."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NoReturn, TypeVar, cast

import sanic_jwt
from sanic import HTTPResponse, Request, Sanic
from sanic_jwt.configuration import ConfigItem

from app.http.problems import insufficient_scope, problem_response, token_refused, unauthorized, unavailable
from app.security.access_tokens import AccessTokens, Claims, InvalidAccessToken
from app.security.revocations import Revocations

TOKENS_REMEMBERED = 20_000  # verified ones

Method = TypeVar("Method", bound=Callable[..., Any])


class Item(ConfigItem):
    """A setting of sanic-jwt that is what it was set to.

    The library's own looks first into a cache on the running task, which a handler that raises leaves
    behind for the connection's next request: `verify_exp=False` on one route let expired tokens into others.
    It also asks for an event loop where there may be none.
    """

    def __call__(self, **_: Any) -> Any:
        """Return the value."""
        return self._value


class Configuration(sanic_jwt.Configuration):
    """sanic-jwt's settings, none of which a request can change."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Configuration":
        """Make every setting an Item before the library's constructor reads the first one."""
        settings: Configuration = super().__new__(cls, *args, **kwargs)
        for name in settings.config_keys:
            item = getattr(settings, name)
            settled = Item(item._value, item_name=name, config=settings, aliases=item.aliases)
            for known_as in (name, *item.aliases):
                setattr(settings, known_as, settled)
        return settings


class Responses(sanic_jwt.Responses):
    """sanic-jwt's errors in our shape."""

    @staticmethod
    def exception_response(request: Request, exception: Any) -> HTTPResponse:
        """Answer 403 for a missing scope, of which the library makes a 401; hand over the rest."""
        if isinstance(exception, sanic_jwt.exceptions.Unauthorized):  # in this app only scoped() raises it
            return problem_response(request, insufficient_scope())
        return request.app.error_handler.default(request, exception)


class Authentication(sanic_jwt.Authentication):
    """Whose token is it, and is it still good? Without any I/O."""

    def use(self, access_tokens: AccessTokens, revocations: Revocations) -> None:
        """Take the parts that a worker has once it has started."""
        self._access_tokens = access_tokens
        self._revocations = revocations
        # A signature that was right stays right. Only good tokens are kept: the cache holds no exceptions.
        self._verified = lru_cache(TOKENS_REMEMBERED)(access_tokens.verify)

    def identify(self, request: Request) -> Claims:
        """Return the claims of the request's token. Raises Problem 401, or 503 if it cannot be judged now."""
        try:
            claims = self._verified(bearer_token(request))
        except InvalidAccessToken:
            raise token_refused("token_invalid", "The access token is not valid.") from None
        if self._access_tokens.expired(claims):
            raise token_refused("token_expired", "The access token has expired.")
        if self._revocations.stale():
            raise unavailable("revocations_stale", "It cannot be told at the moment whether the session goes on.")
        if claims.sid in self._revocations:
            raise token_refused("session_ended", "The session is over.")
        return claims

    async def _check_authentication(
        self, request: Request, request_args: Any, request_kwargs: Any
    ) -> tuple[bool, int, None]:
        request.ctx.claims = self.identify(request)
        return True, 200, None

    async def _verify(self, request: Request, return_payload: bool = False, **_: Any) -> Any:
        claims = self.identify(request)
        return claims.model_dump() if return_payload else (True, 200, None)

    async def extract_scopes(self, request: Request) -> list[str]:
        """Return the scopes of the token that has been verified already."""
        claims: Claims = request.ctx.claims
        return claims.scopes

    async def _decode(self, token: str, verify: bool = True, inline_claims: Any = None) -> dict[str, Any]:
        return self._verified(token).model_dump()

    async def generate_access_token(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: a token belongs to a session, so Logins issues it."""
        raise NotImplementedError("access tokens are issued by Logins, with their session")


def protected(method: Method) -> Method:
    """Let a view's method answer requests with a good token only, and put the token's claims on them.

    sanic-jwt's decorator of this name asks the same `Authentication`, but copies all arguments deeply, opens a
    cache and looks up its settings at every call, which takes longer than the rest of a small request.
    """

    @wraps(method)
    def guarded(view: Any, request: Request[Any, Any], *args: Any, **kwargs: Any) -> Any:
        request.ctx.claims = request.app.ctx.auth.identify(request)
        return method(view, request, *args, **kwargs)

    return cast("Method", guarded)


def bearer_token(request: Request) -> str:
    """Return the token of the one Authorization header. Raises Problem 401.

    RFC 9110 section 11.1: the scheme's name is case-insensitive; RFC 6750 section 2.1: spaces, then the token.
    """
    headers = request.headers.getall("authorization", [])
    if len(headers) > 1:
        raise token_refused("token_invalid", "There is more than one Authorization header.")
    scheme, _, token = headers[0].partition(" ") if headers else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip(" "):
        raise unauthorized("token_missing", "An access token is needed: Authorization: Bearer <token>.")
    return token.strip(" ")


def initialize(app: Sanic[Any, Any], key: bytes) -> None:
    """Put sanic-jwt on the app with our hooks and none of its routes.

    The key is bytes, since the library takes a text that happens to be a file's name for that file.
    """
    sanic_jwt.Initialize(
        app,
        auth_mode=False,
        configuration_class=Configuration,
        authentication_class=Authentication,
        responses_class=Responses,
        secret=key,
        leeway=0,
    )
