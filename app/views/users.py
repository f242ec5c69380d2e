"""Users: register."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request, client
from app.docs import describe
from app.errors import Problem
from app.models.users import User, UsernameTaken
from app.schemas import Registered, Registration, UserOut, read, write

blueprint = Blueprint("users", url_prefix="/users")


class Register(HTTPMethodView, attach=blueprint, uri="/registration"):
    """A user's beginning."""

    @describe(body=Registration, answers={201: Registered}, refuses=(409, 422, 503))
    async def post(self, request: Request) -> HTTPResponse:
        """Register a user and log in."""
        body = read(request, Registration)
        ctx = request.app.ctx
        ctx.passwords.check(body.password, body.username)
        user = User.new(body.username, await ctx.passwords.hash(body.password))
        try:
            tokens = await ctx.logins.register(user, client(request))
        except UsernameTaken:
            raise Problem(409, "username_taken", "Another user has this name.") from None
        return write(Registered(**tokens.model_dump(), user=UserOut.of(user)), 201)
