"""Log in, refresh, verify tokens, list and end sessions."""

from dataclasses import asdict
from http import HTTPStatus

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
    Issued,
    Refresh,
    SessionId,
    SessionOut,
    SessionsOut,
    StepUp,
    VerifiedOut,
)
from app.schemas.factors import PasskeyLogin, PasskeyOptions, SecondFactorIn
from app.schemas.users import UserOut
from app.security.authentication import TOKEN_REQUIRED, authenticated, claims, protected
from app.security.cookie_mode import COOKIES, by_cookie, without_cookies

blueprint = Blueprint("auth", url_prefix="/auth")
OPTIONS = (Code.CROSS_SITE_REQUEST, Code.REVOCATIONS_STALE, Code.NOT_ENABLED, Code.TOO_MANY_ATTEMPTS)


class Login(HTTPMethodView, attach=blueprint, uri=""):
    """The start of a session."""

    @describe(
        body=Credentials,
        responses={200: Issued},
        refuses=(
            Code.WRONG_CREDENTIALS,
            Code.SECOND_FACTOR_REQUIRED,
            *COOKIES,
            Code.TOO_MANY_ATTEMPTS,
            Code.HASHING_BUSY,
        ),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Log in with username and password."""
        body, cookie_mode = read(request, Credentials), request.app.ctx.cookie_mode
        as_cookies = cookie_mode.wanted(request, body.mode)
        tokens = await request.app.ctx.logins.log_in(body.username, body.password, client(request))
        return cookie_mode.respond(tokens, as_cookies=as_cookies)


class TokenRefresh(HTTPMethodView, attach=blueprint, uri="/refresh"):
    """The continuation of a session."""

    @describe(
        body=Refresh,
        responses={200: Issued},
        refuses=(
            Code.TOKEN_INVALID,
            Code.REFRESH_TOKEN_INVALID,
            Code.REFRESH_TOKEN_REUSED,
            Code.SESSION_ENDED,
            Code.CROSS_SITE_REQUEST,
        ),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Exchange a refresh token for new tokens.

        Without a body, the token is that of the cookie. A refusal leaves the cookies as they are: another tab may have
        newer ones, so repeat the request once with those that the browser has then.
        """
        cookie_mode = request.app.ctx.cookie_mode
        token = cookie_mode.refresh_token(request)
        tokens = await request.app.ctx.logins.refresh(token or read(request, Refresh).refresh_token)
        return cookie_mode.respond(tokens, as_cookies=token is not None)


class SecondFactors(HTTPMethodView, attach=blueprint, uri="/second-factor"):
    """The second step of a login."""

    @describe(
        body=SecondFactorIn,
        responses={200: Issued},
        refuses=(Code.SECOND_FACTOR_INVALID, *COOKIES, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Complete a login with a code of the second factor, or a passkey.

        The challenge is that of the response to `POST /auth`, and lives for five minutes.
        """
        body, cookie_mode = read(request, SecondFactorIn), request.app.ctx.cookie_mode
        as_cookies = cookie_mode.wanted(request, body.mode)
        tokens = await request.app.ctx.logins.log_in_with_factor(body.challenge, body.evidence or "", client(request))
        return cookie_mode.respond(tokens, as_cookies=as_cookies)


class PasskeyLoginOptions(HTTPMethodView, attach=blueprint, uri="/passkey/options"):
    """The start of a login, or of a step-up, by passkey."""

    @describe(
        responses={200: PasskeyOptions},
        refuses=(Code.TOKEN_EXPIRED, Code.TOKEN_INVALID, Code.SESSION_ENDED, *OPTIONS),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Return options for a passkey, which name no account.

        With an access token they are for a step-up of its session; one in a cookie that is not valid any more is passed
        over.
        """
        passkeys = request.app.ctx.passkeys
        if request.app.ctx.authenticator.presents_token(request):
            try:
                return await self.step_up(request)
            except Problem as refusal:
                if not by_cookie(request) or refusal.status_code != HTTPStatus.UNAUTHORIZED:
                    raise
        return write(PasskeyOptions(await passkeys.options_to_log_in(client(request))))

    @authenticated
    async def step_up(self, request: Request) -> HTTPResponse:
        """Return options for a step-up of the session."""
        return write(PasskeyOptions(await request.app.ctx.passkeys.options_to_step_up(claims(request))))


class PasskeyLogins(HTTPMethodView, attach=blueprint, uri="/passkey"):
    """A login by passkey."""

    @describe(
        body=PasskeyLogin,
        responses={200: Issued},
        refuses=(Code.SECOND_FACTOR_INVALID, *COOKIES, Code.TOO_MANY_ATTEMPTS),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Log in with a passkey, which needs neither a name nor a password."""
        body, cookie_mode = read(request, PasskeyLogin), request.app.ctx.cookie_mode
        as_cookies = cookie_mode.wanted(request, body.mode)
        tokens = await request.app.ctx.logins.log_in_with_passkey(body.challenge, body.passkey, client(request))
        return cookie_mode.respond(tokens, as_cookies=as_cookies)


class StepUps(HTTPMethodView, attach=blueprint, uri="/step-up"):
    """The renewal of an authentication."""

    @describe(
        body=StepUp,
        responses={200: Issued},
        refuses=(
            Code.WRONG_CREDENTIALS,
            Code.SECOND_FACTOR_REQUIRED,
            Code.SECOND_FACTOR_INVALID,
            *COOKIES,
            Code.TOO_MANY_ATTEMPTS,
            Code.HASHING_BUSY,
        ),
    )
    @authenticated
    async def post(self, request: Request) -> HTTPResponse:
        """Authenticate again; a fresh session replaces this one.

        With the current password, or with the second factor if you have one: a code, or a passkey.
        """
        body, step_up, cookie_mode = read(request, StepUp), request.app.ctx.step_up, request.app.ctx.cookie_mode
        as_cookies = cookie_mode.wanted(request, body.mode)
        if body.evidence is not None:
            tokens = await step_up.by_factor(claims(request), body.evidence, client(request))
        else:
            tokens = await step_up.by_password(claims(request), body.current_password or "", client(request))
        return cookie_mode.respond(tokens, as_cookies=as_cookies)


class Verify(HTTPMethodView, attach=blueprint, uri="/verify"):
    """The claims of the access token."""

    @describe(responses={200: VerifiedOut})
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """Verify the access token and return its claims."""
        return write(VerifiedOut(**claims(request).payload()), omit_none=True)


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
    @TOKEN_REQUIRED
    async def post(self, request: Request) -> HTTPResponse:
        """End this session.

        A refresh cookie suffices, also if the access token has expired.
        """
        cookie_mode, authenticator = request.app.ctx.cookie_mode, request.app.ctx.authenticator
        if refresh_token := cookie_mode.refresh_token(request):
            # Both, since one of them may not be valid any more.
            for token in (cookie_mode.access_token(request), refresh_token):
                if token:
                    await request.app.ctx.logins.revoke(token, await authenticator.claims_of(token))
            return without_cookies(request, no_content())
        response: HTTPResponse = await self.log_out(request)
        return response

    @authenticated
    async def log_out(self, request: Request) -> HTTPResponse:
        """End the session of an access token."""
        await request.app.ctx.logins.log_out(claims(request))
        return without_cookies(request, no_content())


class LogoutAll(HTTPMethodView, attach=blueprint, uri="/logout-all"):
    """The end of all sessions."""

    @describe(responses={204: None})
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """End all your sessions."""
        await request.app.ctx.accounts.log_out_everywhere(claims(request))
        return without_cookies(request, no_content())


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
        me = claims(request)
        if not await request.app.ctx.logins.end(session_id, me):
            raise Problem(Code.NOT_FOUND, "None of your active sessions has this id.")
        return without_cookies(request, no_content()) if session_id == me.sid else no_content()
