"""Sanic's ceiling: one function that answers, and one that also has PyJWT verify the token; nothing else."""

import os
from typing import Any

import jwt
from sanic import HTTPResponse, Request, Sanic, json
from sanic.exceptions import Unauthorized

KEY = os.environ["BENCH_KEY"]
AUDIENCE = "sanic-api-demo"  # of this service's tokens, which are what the ceiling gets

app: Sanic[Any, Any] = Sanic("ceiling")
app.config.AUTO_EXTEND = False


@app.get("/tests/hello")
async def hello(request: Request) -> HTTPResponse:
    """Greet everyone."""
    return json({"Hello": "World!"})


@app.get("/tests/secret")
async def secret(request: Request) -> HTTPResponse:
    """Greet token holders, after one call of PyJWT."""
    try:
        jwt.decode(request.headers["authorization"][7:], KEY, ["HS256"], audience=AUDIENCE)
    except (KeyError, jwt.PyJWTError):
        raise Unauthorized from None
    return json({"Hello": "Secret!"})
