"""The service in separate processes, started by Sanic's command line."""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Command, running
from tools.local_mongo import free_port

CHECKOUT = Path(__file__).parent.parent
SANIC = str(Path(sys.prefix) / "bin" / "sanic")
WORKERS = 2


def environment(mongo_uri: str) -> dict[str, str]:
    """Return environment variables with the settings of a separate service."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    return others | {
        "APP_ENV": "testing",
        "APP_JWT_SECRET_KEY": secrets.token_urlsafe(48),
        "APP_JWT_ALGORITHM": "HS256",  # scripts/run has written another one into instance/application.cfg
        "APP_MONGO_URI": mongo_uri,
        "APP_REGISTRATIONS_PER_ADDRESS": "1000/minute",  # all tests use one address
        "APP_RESETS_PER_ADDRESS": "1000/minute",
    }


@contextmanager
def started(
    mongo_uri: str,
    *options: str,
    port: int = 0,
    variables: Mapping[str, str] | None = None,
    open_files: tuple[int, int] | None = None,
) -> Iterator[tuple[Command, int]]:
    """Start two workers, unless the options say otherwise; yield the command and its port without waiting.

    `open_files` are the soft and the hard limit.
    """
    port = port or free_port()
    command = [SANIC, "app", f"--port={port}", *(options or [f"--workers={WORKERS}"])]
    if open_files:
        soft, hard = open_files
        command = ["sh", "-c", f'ulimit -S -n {soft} && ulimit -H -n {hard} && exec "$@"', "sh", *command]
    with running(command, cwd=CHECKOUT, env={**environment(mongo_uri), **(variables or {})}) as server:
        yield server, port


def new_name() -> str:
    """Return an unused name."""
    return f"alice-{secrets.token_hex(6)}"
