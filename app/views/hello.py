"""The tutorial's two routes: one for everyone, one for token holders."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.responses import answer
from app.openapi.description import describe
from app.schemas.hello import Greeting
from app.security.authentication import protected

blueprint = Blueprint("tests", url_prefix="/tests")


class Hello(HTTPMethodView, attach=blueprint, uri="/hello"):
    """A greeting for everyone."""

    @describe(answers={200: Greeting})
    async def get(self, request: Request) -> HTTPResponse:
        """Greet everyone."""
        return answer(b'{"Hello":"World!"}')


class HelloSecret(HTTPMethodView, attach=blueprint, uri="/secret"):
    """A greeting for token holders."""

    @describe(answers={200: Greeting}, token=True)
    @protected
    async def get(self, request: Request) -> HTTPResponse:
        """Greet whoever shows an access token."""
        return answer(b'{"Hello":"Secret!"}')
