"""Count the files and functions of the service that requests enter.

Run it with python -m tools.local_mongo -- python -m tools.walk. A short walk is a design goal: it is what a newcomer
reads to understand a request.
"""

import os
import secrets
import sys
import threading
from collections.abc import Awaitable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx
from sanic import Sanic
from sanic_testing.reusable import ReusableClient

from app import create_app
from config import load
from tools.local_mongo import free_port

APP = Path(__file__).parent.parent / "app"
BACKGROUND_SECONDS = 60  # between two runs of background work, which would be counted with a request
ALICE = {"username": "alice", "password": "correct horse battery staple"}
NEW_PASSWORD = "a quite different sentence"  # noqa: S105 - of a user in a database that is thrown away


class Walk:
    """The code objects of `app/` that were entered since the start."""

    def __init__(self) -> None:
        self._entered: set[CodeType] = set()

    def start(self) -> None:
        """Forget what was entered before."""
        self._entered.clear()

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call; for sys.setprofile."""
        if event == "call" and frame.f_code.co_filename.startswith(f"{APP}{os.sep}"):
            self._entered.add(frame.f_code)

    def files(self) -> list[str]:
        """Return the files that were entered."""
        return sorted({str(Path(code.co_filename).relative_to(APP)) for code in self._entered})

    def functions(self) -> int:
        """Return how many functions were entered."""
        return len(self._entered)


async def requests(http: httpx.AsyncClient, walk: Walk) -> None:
    """Send each kind of request twice and report the second one, which finds everything loaded."""
    tokens = (await http.post("/users/registration", json=ALICE)).json()

    async def report(name: str, *sends: Awaitable[httpx.Response]) -> httpx.Response:
        await sends[0]
        walk.start()
        response = (await sends[1]).raise_for_status()
        files = walk.files()
        print(f"{name}: {len(files)} files, {walk.functions()} functions: {' '.join(files)}")
        return response

    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    await report("protected request", *(http.get("/tests/secret", headers=bearer) for _ in range(2)))
    login = await report("login", *(http.post("/auth", json=ALICE) for _ in range(2)))
    refreshes = (
        http.post("/auth/refresh", json={"refresh_token": one["refresh_token"]}) for one in (tokens, login.json())
    )
    tokens = (await report("refresh", *refreshes)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    wrong, right = (
        {"current_password": current, "new_password": NEW_PASSWORD} for current in ("wrong", ALICE["password"])
    )
    bodies = (http.post("/users/me/password", json=body, headers=bearer) for body in (wrong, right))
    await report("password change", *bodies)


def main() -> None:
    """Run the service in this process and print a line for each kind of request."""
    walk = Walk()
    settings: dict[str, Any] = {
        "APP_ENV": "testing",
        "APP_JWT_SECRET_KEY": secrets.token_urlsafe(48),
        "APP_REVOCATION_POLL_SECONDS": f"{BACKGROUND_SECONDS}",
        "APP_REVOCATION_STALE_SECONDS": f"{2 * BACKGROUND_SECONDS}",
        "APP_MONGO_URI": os.environ["APP_MONGO_URI"],
    }
    Sanic.test_mode = True
    threading.setprofile(walk.profile)
    client = ReusableClient(create_app(config=load(settings, Path(os.devnull))), host="127.0.0.1", port=free_port())
    client.run()

    async def story() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{client.port}", timeout=20) as http:
            await requests(http, walk)

    sys.setprofile(walk.profile)
    client._run(story())
    sys.setprofile(None)
    client.stop()


if __name__ == "__main__":
    main()
