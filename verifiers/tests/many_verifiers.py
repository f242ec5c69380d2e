"""A server with one Python verifier for each service in NAMES. `/<name>` is protected by its verifier."""

import os
import time
from typing import Any

import uvicorn

from verifiers.python.verifier import BearerMiddleware, Verifier


async def answer(scope: Any, _: Any, send: Any) -> None:
    """Respond with the subject of the token."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["state"]["claims"]["sub"].encode()})


def protected(name: str) -> BearerMiddleware:
    """Protect an app by the service of this name."""
    url, seconds = f"{os.environ['SERVICE_URL']}/{name}", float(os.environ["STALE_SECONDS"])
    verifier = Verifier(url, issuer=os.environ["ISSUER"], audience=os.environ["AUDIENCE"], stale_seconds=seconds)
    return BearerMiddleware(answer, verifier)


apps = {f"/{name}": protected(name) for name in os.environ["NAMES"].split(",")}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Dispatch by the path, without lifespan events."""
    assert scope["type"] == "http"
    await apps[scope["path"]](scope, receive, send)


if __name__ == "__main__":
    real, ahead = time.time, float(os.environ.get("CLOCK_AHEAD", "0"))
    time.time = lambda: real() + ahead
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False)
