"""A resource server: `GET /` is open, `GET /orders` needs a valid access token of the service.

Needs starlette and uvicorn, and what the verifier needs.
"""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from verifier import BearerMiddleware, Verifier


async def index(_: Request) -> JSONResponse:
    """Answer everybody."""
    return JSONResponse({"orders": "/orders"})


async def orders(request: Request) -> JSONResponse:
    """Answer the user of the token."""
    return JSONResponse({"sub": request.state.claims["sub"]})


verifier = Verifier(
    os.environ.get("SERVICE_URL", "http://127.0.0.1:8000"),
    issuer=os.environ.get("ISSUER", "http://localhost:8000"),
    audience=os.environ.get("AUDIENCE", "sanic-api-demo"),
    stale_seconds=float(os.environ.get("STALE_SECONDS", "10")),
)
app = BearerMiddleware(Starlette(routes=[Route("/", index), Route("/orders", orders)]), verifier, public={"/"})

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "9000")), log_level="warning")
