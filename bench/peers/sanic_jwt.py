"""Stock Sanic with stock sanic-jwt, after its documentation; only the authenticate function is custom."""

import os
from typing import Any

from sanic import HTTPResponse, Request, Sanic, json
from sanic_jwt import Initialize, protected

app: Sanic[Any, Any] = Sanic("sanic_jwt_peer")


async def authenticate(request: Request) -> dict[str, str]:
    """Accept every user. The library's own POST /auth calls this function and issues the token."""
    return {"user_id": request.json["username"]}


Initialize(app, authenticate=authenticate, secret=os.environ["BENCH_KEY"], expiration_delta=3600)


@app.get("/tests/hello")
async def hello(request: Request) -> HTTPResponse:
    """Return the public response."""
    return json({"Hello": "World!"})


@app.get("/tests/secret")
@protected()
async def secret(request: Request) -> HTTPResponse:
    """Return the response for clients with a valid token."""
    return json({"Hello": "Secret!"})
