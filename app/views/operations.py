"""What those who run the service ask it."""

import asyncio

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app import metrics
from app.context import Request, begin
from app.http.bodies import write
from app.http.problems import unavailable
from app.http.responses import answer
from app.openapi.description import describe
from app.schemas.operations import Health
from app.server.supervisor import draining

blueprint = Blueprint("operations")
blueprint.on_request(begin)


class Live(HTTPMethodView, attach=blueprint, uri="/health/live"):
    """Liveness."""

    @describe(answers={200: Health})
    async def get(self, request: Request) -> HTTPResponse:
        """Tell that the process answers."""
        return write(Health(status="live"))


class Ready(HTTPMethodView, attach=blueprint, uri="/health/ready"):
    """Readiness."""

    @describe(answers={200: Health}, refuses=("stopping", "revocations_stale", "store_unavailable"))
    async def get(self, request: Request) -> HTTPResponse:
        """Tell whether the service can serve: database reachable, revocations fresh."""
        if draining(request.app):
            raise unavailable("stopping", "The service is about to stop.")
        ctx = request.app.ctx
        await ctx.database.ping()
        await ctx.users.prepare()
        if ctx.revocations.stale():
            raise unavailable("revocations_stale", "The revocations have not been followed for too long.")
        return write(Health(status="ready"))


class Metrics(HTTPMethodView, attach=blueprint, uri="/metrics"):
    """What is counted."""

    @describe(answers={200: None})
    async def get(self, request: Request) -> HTTPResponse:
        """Tell Prometheus what was counted, summed over all workers."""
        return answer(await asyncio.to_thread(metrics.text), content_type=metrics.CONTENT_TYPE)
