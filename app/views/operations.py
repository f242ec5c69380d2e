"""Health and metrics, for operators."""

import asyncio
import hmac

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

    @describe(responses={200: Health}, refuses=(Code.STOPPING, Code.CONNECTIONS_EXHAUSTED, Code.REVOCATIONS_STALE))
    async def get(self, request: Request) -> HTTPResponse:
        """Check that the service can serve.

        There are connections left, the database is usable by all requests, and the revocations are fresh.
        """
        ctx = request.app.ctx
        if ctx.draining:
            raise Problem(Code.STOPPING)
        if ctx.connections.exhausted():
            raise Problem(Code.CONNECTIONS_EXHAUSTED)
        await ctx.database.check()
        if ctx.revocations.stale():
            raise Problem(Code.REVOCATIONS_STALE)
        return write(Health(status="ready"))


class Metrics(HTTPMethodView, attach=blueprint, uri="/metrics"):
    """Metrics."""

    @describe(responses={200: None}, refuses=(Code.NOT_FOUND, Code.UNAUTHORIZED))
    async def get(self, request: Request) -> HTTPResponse:
        """Return the metrics for Prometheus, summed over all workers.

        If the service has a `METRICS_TOKEN`, the request must present it: `Authorization: Bearer <token>`. The metrics
        can be switched off (`METRICS`).
        """
        _require_metrics(request)
        return respond(await asyncio.to_thread(metrics.text), content_type=metrics.CONTENT_TYPE)


def _require_metrics(request: Request) -> None:
    """Require that the metrics are switched on, and their token if there is one, compared in constant time.

    Raises Problem 401 or 404.
    """
    config = request.app.config
    if not config.METRICS:
        raise Problem(Code.NOT_FOUND)
    scheme, _, token = request.headers.getone("authorization", "").partition(" ")
    if config.METRICS_TOKEN is not None and not (
        scheme.lower() == "bearer"
        and hmac.compare_digest(token.strip(" ").encode(errors="replace"), config.METRICS_TOKEN.encode())
    ):
        raise Problem(Code.UNAUTHORIZED)
