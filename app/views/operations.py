"""What those who run the service ask it."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request, begin
from app.docs import describe
from app.errors import unavailable
from app.processes import draining
from app.schemas import Health, write

blueprint = Blueprint("operations", url_prefix="/health")
blueprint.on_request(begin)


class Live(HTTPMethodView, attach=blueprint, uri="/live"):
    """Liveness."""

    @describe(answers={200: Health})
    async def get(self, request: Request) -> HTTPResponse:
        """Tell that the process answers."""
        return write(Health(status="live"))


class Ready(HTTPMethodView, attach=blueprint, uri="/ready"):
    """Readiness."""

    @describe(answers={200: Health}, refuses=(503,))
    async def get(self, request: Request) -> HTTPResponse:
        """Tell whether the service can serve: database reachable, revocations fresh."""
        if draining(request.app):
            raise unavailable("stopping", "The service is about to stop.")
        ctx = request.app.ctx
        if ctx.revocations.stale():
            raise unavailable("revocations_stale", "The revocations have not been followed for too long.")
        await ctx.database.ping()
        return write(Health(status="ready"))
