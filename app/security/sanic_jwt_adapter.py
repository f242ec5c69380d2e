"""sanic-jwt with its defects corrected through its own extension points; it authenticates as the guards do."""

from typing import Any, NoReturn

import sanic_jwt
from sanic import HTTPResponse, Request, Sanic
from sanic_jwt.configuration import ConfigItem

from app.http.codes import Code
from app.http.problems import Problem, problem_response
from app.logs.audit import audit_repeated
from app.security.authentication import Authenticator
from app.tokens.access import Claims, UnknownKey


class Item(ConfigItem):
    """A setting of sanic-jwt whose value no request can change.

    The library first looks into a cache on the running task. A handler that raises leaves its overrides there for the
    next request of the connection: `verify_exp=False` on one route let expired tokens into others (authentication
    bypass). It also asks for an event loop where there may be none.
    """

    def __call__(self, **_: Any) -> Any:
        """Return the value."""
        return self._value


class Configuration(sanic_jwt.Configuration):
    """sanic-jwt's settings, fixed at the start."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Configuration":
        """Make every setting an Item before the library's constructor reads the first one."""
        settings: Configuration = super().__new__(cls, *args, **kwargs)
        for name in settings.config_keys:
            item = getattr(settings, name)
            fixed = Item(item._value, item_name=name, config=settings, aliases=item.aliases)
            for known_as in (name, *item.aliases):
                setattr(settings, known_as, fixed)
        return settings


class Responses(sanic_jwt.Responses):
    """sanic-jwt's errors as problem details."""

    @staticmethod
    def exception_response(request: Request, exception: Any) -> HTTPResponse:
        """Respond with 403 to a missing scope.

        The library would respond with 401. Other errors go to the app's error handler.
        """
        if isinstance(exception, sanic_jwt.exceptions.Unauthorized):  # in this app only scoped() raises it
            user_id = request.ctx.claims.sub
            audit_repeated("forbidden", of=user_id, user_id=user_id)
            return problem_response(request, Problem(Code.INSUFFICIENT_SCOPE))
        return request.app.error_handler.default(request, exception)


class Authentication(sanic_jwt.Authentication):
    """sanic-jwt's hooks, which all call the worker's Authenticator."""

    async def _check_authentication(
        self, request: Request, request_args: Any, request_kwargs: Any
    ) -> tuple[bool, int, None]:
        request.ctx.claims = await self._authenticate(request)
        return True, 200, None

    async def _verify(self, request: Request, return_payload: bool = False, **_: Any) -> Any:
        claims = await self._authenticate(request)
        return claims.payload() if return_payload else (True, 200, None)

    async def extract_scopes(self, request: Request) -> list[str]:
        """Return the scopes of the token, which was authenticated before."""
        claims: Claims = request.ctx.claims
        return list(claims.scopes)

    async def _decode(self, token: str, verify: bool = True, inline_claims: Any = None) -> dict[str, Any]:
        claims: Claims = self.app.ctx.authenticator.decode(token)
        return claims.payload()

    async def generate_access_token(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: a token belongs to a session, so Logins issues it."""
        raise NotImplementedError("access tokens are issued by Logins, with their session")

    @staticmethod
    async def _authenticate(request: Request) -> Claims:
        authenticator: Authenticator = request.app.ctx.authenticator
        try:
            return authenticator.authenticate(request)
        except UnknownKey:
            return await authenticator.authenticate_with_new_keys(request)


def initialize(app: Sanic[Any, Any], key: bytes) -> None:
    """Add sanic-jwt to the app, with these hooks and without its routes.

    The key is bytes, since the library replaces a text that is the name of a file by the file's content.
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
