"""The tutorial's greetings: one for everyone, one for token holders."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.responses import respond
from app.openapi.operations import describe
from app.schemas.hello import Greeting
from app.security.authentication import protected

blueprint = Blueprint("tests", url_prefix="/tests")


class Hello(HTTPMethodView, attach=blueprint, uri="/hello"):
    """The public greeting."""

    @describe(responses={200: Greeting})
    async def get(self, request: Request) -> HTTPResponse:
        """Greet everyone."""
        return respond(b'{"Hello":"World!"}')


class HelloSecret(HTTPMethodView, attach=blueprint, uri="/secret"):
    """The greeting for token holders."""

    @describe(responses={200: Greeting})
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """Greet token holders."""
        return respond(b'{"Hello":"Secret!"}')
