"""Servers that are protected by a verifier, as processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from verifiers.tests.fake_service import AUDIENCE, ISSUER

VERIFIERS = Path(__file__).parents[1]
STALE_SECONDS = 3
TIMEOUT_SECONDS = 20
PYTHON, NODE = sys.executable, "node"
EXAMPLES = {
    "python": [PYTHON, str(VERIFIERS / "python/resource_server.py")],
    "node": [NODE, str(VERIFIERS / "node/resource_server.mjs")],
    "sanic": [PYTHON, "-m", "verifiers.tests.sanic_server"],
}
MANY = {
    "python": [PYTHON, "-m", "verifiers.tests.many_verifiers"],
    "node": [NODE, str(VERIFIERS / "node/tests/many_verifiers.mjs")],
}


def until(condition: Callable[[], object], seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait for a condition, and fail after this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], service_url: str, **settings: str) -> Iterator[httpx.Client]:
    """Run a server for a service, and yield a client of it."""
    port = free_port()
    settings |= {"SERVICE_URL": service_url, "ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "PORT": str(port)}
    environment = {**os.environ, "STALE_SECONDS": str(STALE_SECONDS), **settings}
    with (
        subprocess.Popen(command, env=environment, cwd=VERIFIERS.parent) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_SECONDS) as client,
    ):
        try:
            until(lambda: process.poll() is not None or listening(port))
            assert process.poll() is None
            yield client
        finally:
            process.terminate()


def listening(port: int) -> bool:
    """Return whether something listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bearer(token: str) -> dict[str, str]:
    """Return the headers of a request with a token."""
    return {"Authorization": f"Bearer {token}"}
