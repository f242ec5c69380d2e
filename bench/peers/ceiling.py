"""Sanic's ceiling, its upper limit of speed: a minimal handler, and one that verifies the token with PyJWT."""

import os
from typing import Any

import jwt
from sanic import HTTPResponse, Request, Sanic, json
from sanic.exceptions import Unauthorized

KEY = os.environ["BENCH_KEY"]
AUDIENCE = os.environ["BENCH_AUDIENCE"]  # of this service's tokens, which the ceiling also verifies

app: Sanic[Any, Any] = Sanic("ceiling")
app.config.AUTO_EXTEND = False


@app.get("/tests/hello")
async def hello(request: Request) -> HTTPResponse:
    """Return the public response."""
    return json({"Hello": "World!"})


@app.get("/tests/secret")
async def secret(request: Request) -> HTTPResponse:
    """Return the response for clients with a valid token, after one call of PyJWT."""
    try:
        jwt.decode(request.headers["authorization"][7:], KEY, ["HS256"], audience=AUDIENCE)
    except (KeyError, jwt.PyJWTError):
        raise Unauthorized from None
    return json({"Hello": "Secret!"})
