"""OAuth 2.0 endpoints in the form that standard clients speak.

The password grant exists for clients of this service's own users that speak OAuth 2.0 only, such as the documentation
page. RFC 9700 section 2.4 warns of it: a third party must never see a password. `OAUTH_PASSWORD_GRANT` switches it off.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import write
from app.http.client import client
from app.http.codes import Code
from app.http.forms import OAuthRefused, read_form
from app.openapi.operations import describe
from app.schemas.auth import Tokens
from app.schemas.oauth import OAuthError, OAuthTokens, RevocationRequest, TokenRequest
from app.security.logins import NOT_GRANTED

blueprint = Blueprint("oauth", url_prefix="/oauth")

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[HTTPResponse]])


def answers_as_oauth(handler: Handler) -> Handler:
    """Answer refusals as RFC 6749 section 5.2 has them."""

    @wraps(handler)
    async def guarded(*args: Any, **kwargs: Any) -> HTTPResponse:
        try:
            return await handler(*args, **kwargs)
        except OAuthRefused as refused:
            return write(OAuthError(error=refused.error, error_description=refused.description), 400)
        except NOT_GRANTED:
            return write(OAuthError(error="invalid_grant", error_description="The grant is not valid."), 400)

    return cast("Handler", guarded)


class Token(HTTPMethodView, attach=blueprint, uri="/token"):
    """Tokens for a grant."""

    @describe(
        form=TokenRequest,
        responses={200: OAuthTokens, 400: OAuthError},
        refuses=(Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    @answers_as_oauth
    async def post(self, request: Request) -> HTTPResponse:
        """Exchange a password or a refresh token for tokens (RFC 6749)."""
        tokens = await _granted(request, read_form(request, TokenRequest))
        decoded = request.app.ctx.authenticator.decode(tokens.access_token)
        return write(OAuthTokens(**tokens.model_dump(), scope=" ".join(decoded.scopes)))


class Revocation(HTTPMethodView, attach=blueprint, uri="/revoke"):
    """The end of a session by one of its tokens."""

    @describe(form=RevocationRequest, responses={200: None, 400: OAuthError})
    @answers_as_oauth
    async def post(self, request: Request) -> HTTPResponse:
        """End the session of a token (RFC 7009).

        A token that is not valid is answered in the same way.
        """
        token = read_form(request, RevocationRequest).token
        claims = await request.app.ctx.authenticator.claims_of(token)
        await request.app.ctx.logins.revoke(token, claims)
        return HTTPResponse(None, 200)


async def _granted(request: Request, form: TokenRequest) -> Tokens:
    logins = request.app.ctx.logins
    if form.grant_type == "refresh_token":
        return await logins.refresh(_given(form.refresh_token, "refresh_token"))
    if form.grant_type == "password" and request.app.config.OAUTH_PASSWORD_GRANT:
        name, password = _given(form.username, "username"), _given(form.password, "password")
        return await logins.log_in(name, password, client(request))
    raise OAuthRefused("unsupported_grant_type", "This grant is not supported.")


def _given(value: str | None, name: str) -> str:
    if value is None:
        raise OAuthRefused("invalid_request", f"Missing or wrong: {name}.")
    return value
