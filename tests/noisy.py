"""The service with faults that write to the log in every way in which a process can."""

import asyncio
import gc
import logging
import os
import threading
import warnings

from sanic import HTTPResponse, Request

import app
from app.context import App

LINES = "first line\nsecond line \u2028 \r \udcff"
MULTILINE = f"{LINES} \x1b[31m"  # as an exception that quotes a client
FAILURE = "NOISY_FAILURE"  # the environment variable that names the step at which the start fails


class Unraisable:
    """An object that fails when it is collected."""

    def __del__(self) -> None:
        raise RuntimeError(f"unraisable: {MULTILINE}")


async def fail_in_background() -> None:
    """Fail in a task that nothing awaits."""
    raise RuntimeError(f"task: {MULTILINE}")


def fail_in_thread() -> None:
    """Fail in a thread."""
    raise RuntimeError(f"thread: {MULTILINE}")


async def make_noise(_: Request) -> HTTPResponse:
    """Write to the log in every way, and fail."""
    password = "a local variable"
    warnings.warn(f"warning: {LINES}", stacklevel=1)
    logging.getLogger("some.library").warning("library: %s", LINES)
    thread = threading.Thread(target=fail_in_thread)
    thread.start()
    await asyncio.to_thread(thread.join)
    task = asyncio.create_task(fail_in_background())
    await asyncio.sleep(0)
    del task
    Unraisable()
    gc.collect()
    raise RuntimeError(f"handler: {MULTILINE} {len(password)}")


def create_app(args: object = None) -> App:
    """Make the service, or fail."""
    service = app.create_app(args)
    service.add_route(make_noise, "/noise")
    if os.environ.get(FAILURE) == "factory":
        raise RuntimeError(f"factory: {MULTILINE}")

    @service.before_server_start
    async def fail(_: App) -> None:
        if os.environ.get(FAILURE) == "listener":
            raise RuntimeError(f"listener: {MULTILINE}")

    return service
