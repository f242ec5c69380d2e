"""Log in, refresh, verify tokens, list and end sessions."""

from dataclasses import asdict

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import read, write
from app.http.client import client
from app.http.codes import Code
from app.http.problems import Problem
from app.http.responses import no_content
from app.openapi.operations import describe
from app.schemas.auth import (
    SESSION_ID,
    Credentials,
    Refresh,
    SessionId,
    SessionOut,
    SessionsOut,
    StepUp,
    Tokens,
    VerifiedOut,
)
from app.schemas.factors import SecondFactorIn
from app.schemas.users import UserOut
from app.security.authentication import authenticated, claims, protected

blueprint = Blueprint("auth", url_prefix="/auth")


class Login(HTTPMethodView, attach=blueprint, uri=""):
    """The start of a session."""

    @describe(
        body=Credentials,
        responses={200: Tokens},
        refuses=(Code.WRONG_CREDENTIALS, Code.SECOND_FACTOR_REQUIRED, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Log in with username and password."""
        body = read(request, Credentials)
        return write(await request.app.ctx.logins.log_in(body.username, body.password, client(request)))


class TokenRefresh(HTTPMethodView, attach=blueprint, uri="/refresh"):
    """The continuation of a session."""

    @describe(
        body=Refresh,
        responses={200: Tokens},
        refuses=(Code.REFRESH_TOKEN_INVALID, Code.REFRESH_TOKEN_REUSED, Code.SESSION_ENDED),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Exchange a refresh token for new tokens."""
        body = read(request, Refresh)
        return write(await request.app.ctx.logins.refresh(body.refresh_token))


class SecondFactors(HTTPMethodView, attach=blueprint, uri="/second-factor"):
    """The second step of a login."""

    @describe(
        body=SecondFactorIn,
        responses={200: Tokens},
        refuses=(Code.SECOND_FACTOR_INVALID, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Complete a login with a code of the second factor.

        The challenge is that of the response to `POST /auth`, and lives for five minutes.
        """
        body = read(request, SecondFactorIn)
        return write(await request.app.ctx.logins.log_in_with_factor(body.challenge, body.code, client(request)))


class StepUps(HTTPMethodView, attach=blueprint, uri="/step-up"):
    """The renewal of an authentication."""

    @describe(
        body=StepUp,
        responses={200: Tokens},
        refuses=(
            Code.WRONG_CREDENTIALS,
            Code.SECOND_FACTOR_REQUIRED,
            Code.SECOND_FACTOR_INVALID,
            Code.NOT_ENABLED,
            Code.TOO_MANY_ATTEMPTS,
            Code.HASHING_BUSY,
        ),
    )
    @authenticated
    async def post(self, request: Request) -> HTTPResponse:
        """Authenticate again; a fresh session replaces this one.

        With the current password, or with a code of the second factor if you have one.
        """
        body, step_up = read(request, StepUp), request.app.ctx.step_up
        if body.code is not None:
            return write(await step_up.by_code(claims(request), body.code, client(request)))
        return write(await step_up.by_password(claims(request), body.current_password or "", client(request)))


class Verify(HTTPMethodView, attach=blueprint, uri="/verify"):
    """The claims of the access token."""

    @describe(responses={200: VerifiedOut})
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """Verify the access token and return its claims."""
        return write(VerifiedOut(**claims(request).model_dump(exclude_unset=True)), omit_none=True)


class Me(HTTPMethodView, attach=blueprint, uri="/me"):
    """The user of the access token."""

    @describe(responses={200: UserOut})
    @authenticated
    async def get(self, request: Request) -> HTTPResponse:
        """Return the user of the access token."""
        return write(UserOut.of(await request.app.ctx.accounts.get(claims(request).sub)))


class Logout(HTTPMethodView, attach=blueprint, uri="/logout"):
    """The end of a session."""

    @describe(responses={204: None})
    @authenticated
    async def post(self, request: Request) -> HTTPResponse:
        """End this session."""
        await request.app.ctx.logins.log_out(claims(request))
        return no_content()


class LogoutAll(HTTPMethodView, attach=blueprint, uri="/logout-all"):
    """The end of all sessions."""

    @describe(responses={204: None})
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """End all your sessions."""
        await request.app.ctx.accounts.log_out_everywhere(claims(request))
        return no_content()


class MySessions(HTTPMethodView, attach=blueprint, uri="/sessions"):
    """The user's active sessions."""

    @describe(responses={200: SessionsOut})
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """List your active sessions."""
        me = claims(request)
        active = await request.app.ctx.logins.active(me.sub)
        return write(SessionsOut(sessions=[SessionOut(**asdict(one), current=one.id == me.sid) for one in active]))


class MySession(HTTPMethodView, attach=blueprint, uri=f"/sessions/<session_id:{SESSION_ID}>"):
    """One of the user's active sessions."""

    @describe(responses={204: None}, refuses=(Code.NOT_FOUND,))
    @protected
    async def delete(self, request: Request, session_id: SessionId) -> HTTPResponse:
        """End one of your sessions."""
        if not await request.app.ctx.logins.end(session_id, claims(request)):
            raise Problem(Code.NOT_FOUND, "None of your active sessions has this id.")
        return no_content()
