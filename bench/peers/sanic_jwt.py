"""Stock Sanic with stock sanic-jwt, after its documentation: the authenticate function is all it was given."""

import os
from typing import Any

from sanic import HTTPResponse, Request, Sanic, json
from sanic_jwt import Initialize, protected

app: Sanic[Any, Any] = Sanic("sanic_jwt_peer")


async def authenticate(request: Request) -> dict[str, str]:
    """Take everybody in; the library's own POST /auth calls this and hands out the token."""
    return {"user_id": request.json["username"]}


Initialize(app, authenticate=authenticate, secret=os.environ["BENCH_KEY"], expiration_delta=3600)


@app.get("/tests/hello")
async def hello(request: Request) -> HTTPResponse:
    """Greet everyone."""
    return json({"Hello": "World!"})


@app.get("/tests/secret")
@protected()
async def secret(request: Request) -> HTTPResponse:
    """Greet token holders."""
    return json({"Hello": "Secret!"})
