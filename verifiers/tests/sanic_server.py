"""A Sanic app that is protected by the Python verifier."""

import os

from sanic import HTTPResponse, Request, Sanic
from sanic.response import json

from verifiers.python.verifier import Verifier

app = Sanic("orders")
verifier = Verifier(
    os.environ["SERVICE_URL"],
    issuer=os.environ["ISSUER"],
    audience=os.environ["AUDIENCE"],
    stale_seconds=float(os.environ["STALE_SECONDS"]),
)
app.add_task(verifier.follow)  # type: ignore[arg-type] # Sanic accepts functions, but its annotation does not


@app.get("/")
async def index(_: Request) -> HTTPResponse:
    """Answer everybody."""
    return json({})


@app.get("/orders")
@verifier.protected
async def orders(request: Request) -> HTTPResponse:
    """Answer the user of the token."""
    return json({"sub": request.ctx.claims["sub"]})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), single_process=True, access_log=False, motd=False)
