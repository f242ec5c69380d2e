"""Register, without an e-mail address; `recovery` has the route of a service that sends mails."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import read, write
from app.http.client import client
from app.http.codes import Code
from app.openapi.operations import describe
from app.schemas.users import Registered, Registration, UserOut

blueprint = Blueprint("registration", url_prefix="/users")


class Register(HTTPMethodView, attach=blueprint, uri="/registration"):
    """The start of an account."""

    @describe(
        body=Registration,
        responses={201: Registered},
        refuses=(Code.USERNAME_TAKEN, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Register a user and log in."""
        body = read(request, Registration)
        user, tokens = await request.app.ctx.accounts.register(body.username, body.password, client(request))
        return write(Registered(**tokens.model_dump(), user=UserOut.of(user)), 201)
