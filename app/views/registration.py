"""Register, without an e-mail address; `recovery` has the route of a service that sends mails."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import read
from app.http.client import client
from app.http.codes import Code
from app.openapi.operations import describe
from app.schemas.users import RegisteredOut, Registration, UserOut
from app.security.cookie_mode import COOKIES

blueprint = Blueprint("registration", url_prefix="/users")


class Register(HTTPMethodView, attach=blueprint, uri="/registration"):
    """The start of an account."""

    @describe(
        body=Registration,
        responses={201: RegisteredOut},
        refuses=(Code.USERNAME_TAKEN, *COOKIES, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Register a user and log in."""
        body, cookie_mode = read(request, Registration), request.app.ctx.cookie_mode
        as_cookies = cookie_mode.wanted(request, body.mode)
        user, tokens = await request.app.ctx.accounts.register(body.username, body.password, client(request))
        return cookie_mode.respond_registered(tokens, UserOut.of(user), as_cookies=as_cookies)
