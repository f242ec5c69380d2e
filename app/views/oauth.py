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
from app.security.factor_errors import SecondFactorRequired
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
            return _refused(OAuthError(error=refused.error, error_description=refused.description))
        except SecondFactorRequired as required:
            description = "A second factor is required: its grant is in the metadata."
            about = {"challenge": required.challenge, "factors": required.factors}
            return _refused(OAuthError(error="mfa_required", error_description=description, **about))
        except NOT_GRANTED:
            return _refused(OAuthError(error="invalid_grant", error_description="The grant is not valid."))

    return cast("Handler", guarded)


def _refused(error: OAuthError) -> HTTPResponse:
    return write(error, 400, omit_none=True)


class Token(HTTPMethodView, attach=blueprint, uri="/token"):
    """Tokens for a grant."""

    @describe(
        form=TokenRequest,
        responses={200: OAuthTokens, 400: OAuthError},
        refuses=(Code.CROSS_SITE_REQUEST, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    @answers_as_oauth
    async def post(self, request: Request) -> HTTPResponse:
        """Exchange a password or a refresh token for tokens (RFC 6749).

        With a second factor, the response is `mfa_required` with a challenge for the grant of the second factor, which
        the metadata name.
        """
        request.app.ctx.cross_site.require(request, from_browsers_only=True)
        tokens = await _granted(request, read_form(request, TokenRequest))
        decoded = request.app.ctx.authenticator.decode(tokens.access_token)
        return write(OAuthTokens(**tokens.model_dump(), scope=" ".join(decoded.scopes)))


class Revocation(HTTPMethodView, attach=blueprint, uri="/revoke"):
    """The end of a session by one of its tokens."""

    @describe(form=RevocationRequest, responses={200: None, 400: OAuthError}, refuses=(Code.CROSS_SITE_REQUEST,))
    @answers_as_oauth
    async def post(self, request: Request) -> HTTPResponse:
        """End the session of a token (RFC 7009).

        A token that is not valid is answered in the same way.
        """
        request.app.ctx.cross_site.require(request, from_browsers_only=True)
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
    if form.grant_type == request.app.config.SECOND_FACTOR_GRANT and request.app.config.OAUTH_PASSWORD_GRANT:
        challenge, code = _given(form.challenge, "challenge"), _given(form.code, "code")
        return await logins.log_in_with_factor(challenge, code, client(request))
    raise OAuthRefused("unsupported_grant_type", "This grant is not supported.")


def _given(value: str | None, name: str) -> str:
    if value is None:
        raise OAuthRefused("invalid_request", f"Missing or wrong: {name}.")
    return value
