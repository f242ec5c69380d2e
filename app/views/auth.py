"""Log in, refresh, look at the token, log out."""

from sanic import Blueprint, HTTPResponse
from sanic.response import empty
from sanic.views import HTTPMethodView
from sanic_jwt import protected

from app.context import Request, claims, client
from app.docs import describe
from app.errors import token_refused, wrong_credentials
from app.schemas import Credentials, Refresh, Tokens, UserOut, VerifiedOut, read, write

blueprint = Blueprint("auth", url_prefix="/auth")


class Login(HTTPMethodView, attach=blueprint, uri=""):
    """A session's beginning."""

    @describe(body=Credentials, answers={200: Tokens}, refuses=(401, 422, 503))
    async def post(self, request: Request) -> HTTPResponse:
        """Log in with username and password."""
        body = read(request, Credentials)
        ctx = request.app.ctx
        user = await ctx.users.by_name(body.username)
        right, better_hash = await ctx.passwords.verify(body.password, user.password_hash if user else None)
        if not user or not right or user.disabled:
            raise wrong_credentials()
        if better_hash:
            await ctx.users.replace_hash(user, better_hash)
        return write(await ctx.logins.open(user, client(request)))


class RefreshTokens(HTTPMethodView, attach=blueprint, uri="/refresh"):
    """A session's continuation."""

    @describe(body=Refresh, answers={200: Tokens}, refuses=(401, 422, 503))
    async def post(self, request: Request) -> HTTPResponse:
        """Exchange a refresh token for new tokens."""
        body = read(request, Refresh)
        return write(await request.app.ctx.logins.refresh(body.refresh_token))


class Verify(HTTPMethodView, attach=blueprint, uri="/verify"):
    """A token's claims."""

    @describe(answers={200: VerifiedOut}, token=True)
    @protected()
    async def get(self, request: Request) -> HTTPResponse:
        """Tell whether the access token holds, and what it claims."""
        return write(VerifiedOut(**claims(request).model_dump()))


class Me(HTTPMethodView, attach=blueprint, uri="/me"):
    """The token's user."""

    @describe(answers={200: UserOut}, token=True)
    @protected()
    async def get(self, request: Request) -> HTTPResponse:
        """Show the user to whom the access token belongs."""
        user = await request.app.ctx.users.by_id(claims(request).sub)
        if user is None:
            raise token_refused("session_ended", "The user is gone.")
        return write(UserOut.of(user))


class Logout(HTTPMethodView, attach=blueprint, uri="/logout"):
    """A session's end."""

    @describe(answers={204: None}, token=True)
    @protected()
    async def post(self, request: Request) -> HTTPResponse:
        """End this session."""
        await request.app.ctx.logins.end(claims(request))
        return empty()


class LogoutAll(HTTPMethodView, attach=blueprint, uri="/logout-all"):
    """The end of all sessions."""

    @describe(answers={204: None}, token=True)
    @protected()
    async def post(self, request: Request) -> HTTPResponse:
        """End every session of this user."""
        await request.app.ctx.logins.end_all(claims(request).sub)
        return empty()
