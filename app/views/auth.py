"""Log in, refresh, look at the token, log out."""

from dataclasses import asdict

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request, begin, claims, client
from app.http.bodies import read, write
from app.http.client import address
from app.http.problems import not_found, token_refused
from app.http.responses import nothing
from app.openapi.description import describe
from app.schemas.auth import SESSION_ID, Credentials, Refresh, SessionOut, SessionsOut, Tokens, VerifiedOut
from app.schemas.users import UserOut
from app.security.authentication import protected

blueprint = Blueprint("auth", url_prefix="/auth")
blueprint.on_request(begin)


class Login(HTTPMethodView, attach=blueprint, uri=""):
    """A session's beginning."""

    @describe(
        body=Credentials,
        answers={200: Tokens},
        refuses=("wrong_credentials", "too_many_attempts", "hashing_busy", "store_unavailable"),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Log in with username and password."""
        body = read(request, Credentials)
        ctx = request.app.ctx
        user = await ctx.credentials.check(body.username, body.password, address(request))
        return write(await ctx.logins.open(user, client(request)))


class RefreshTokens(HTTPMethodView, attach=blueprint, uri="/refresh"):
    """A session's continuation."""

    @describe(
        body=Refresh,
        answers={200: Tokens},
        refuses=("refresh_token_invalid", "refresh_token_reused", "session_ended", "store_unavailable"),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Exchange a refresh token for new tokens."""
        body = read(request, Refresh)
        return write(await request.app.ctx.logins.refresh(body.refresh_token))


class Verify(HTTPMethodView, attach=blueprint, uri="/verify"):
    """A token's claims."""

    @describe(answers={200: VerifiedOut}, token=True)
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """Tell whether the access token holds, and what it claims."""
        return write(VerifiedOut(**claims(request).model_dump()))


class Me(HTTPMethodView, attach=blueprint, uri="/me"):
    """The token's user."""

    @describe(answers={200: UserOut}, refuses=("store_unavailable",), token=True)
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """Show the user to whom the access token belongs."""
        user = await request.app.ctx.users.by_id(claims(request).sub)
        if user is None:
            raise token_refused("session_ended", "The user is gone.")
        return write(UserOut.of(user))


class Logout(HTTPMethodView, attach=blueprint, uri="/logout"):
    """A session's end."""

    @describe(answers={204: None}, refuses=("store_unavailable",), token=True)
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """End this session."""
        await request.app.ctx.logins.log_out(claims(request))
        return nothing()


class LogoutAll(HTTPMethodView, attach=blueprint, uri="/logout-all"):
    """The end of all sessions."""

    @describe(answers={204: None}, refuses=("store_unavailable",), token=True)
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """End every session of this user."""
        await request.app.ctx.logins.log_out_everywhere(claims(request).sub)
        return nothing()


class MySessions(HTTPMethodView, attach=blueprint, uri="/sessions"):
    """Where one is logged in."""

    @describe(answers={200: SessionsOut}, refuses=("store_unavailable",), token=True)
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """List one's sessions that go on."""
        me = claims(request)
        live = await request.app.ctx.logins.live(me.sub)
        return write(SessionsOut(sessions=[SessionOut(**asdict(one), current=one.id == me.sid) for one in live]))


class MySession(HTTPMethodView, attach=blueprint, uri=f"/sessions/<session_id:{SESSION_ID}>"):
    """One of the places where one is logged in."""

    @describe(answers={204: None}, refuses=("not_found", "store_unavailable"), token=True)
    @protected
    async def delete(self, request: Request, session_id: str) -> HTTPResponse:
        """End one of one's sessions."""
        if not await request.app.ctx.logins.end(session_id, claims(request).sub):
            raise not_found("None of your sessions that go on has this id.")
        return nothing()
