"""Health and metrics, for operators."""

import asyncio

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app import metrics
from app.context import Request
from app.http.bodies import write
from app.http.codes import Code
from app.http.problems import Problem
from app.http.responses import respond
from app.openapi.operations import describe
from app.schemas.operations import Health

blueprint = Blueprint("operations")


class Live(HTTPMethodView, attach=blueprint, uri="/health/live"):
    """Liveness."""

    @describe(responses={200: Health})
    async def get(self, request: Request) -> HTTPResponse:
        """Check that the process responds."""
        return write(Health(status="live"))


class Ready(HTTPMethodView, attach=blueprint, uri="/health/ready"):
    """Readiness."""

    @describe(responses={200: Health}, refuses=(Code.STOPPING, Code.REVOCATIONS_STALE))
    async def get(self, request: Request) -> HTTPResponse:
        """Check that the service can serve: database usable by all requests, revocations fresh."""
        ctx = request.app.ctx
        if ctx.draining:
            raise Problem(Code.STOPPING)
        await ctx.database.check()
        if ctx.revocations.stale():
            raise Problem(Code.REVOCATIONS_STALE)
        return write(Health(status="ready"))


class Metrics(HTTPMethodView, attach=blueprint, uri="/metrics"):
    """Metrics."""

    @describe(responses={200: None})
    async def get(self, request: Request) -> HTTPResponse:
        """Return the metrics for Prometheus, summed over all workers."""
        return respond(await asyncio.to_thread(metrics.text), content_type=metrics.CONTENT_TYPE)
