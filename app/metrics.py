"""What is counted, for Prometheus: by each worker in files that all share, so that any of them can tell the sum.

The variable that names the folder has to be set before prometheus_client is imported, which is why `share` is called
by the process that starts the workers.
"""

import atexit
import os
import re
import shutil
import tempfile
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from sanic import Request

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}  # others are counted as one: clients invent them
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# Each is there from the start at 0, or Prometheus would not see the first one happen.
EVENTS = (
    "access_changed",
    "deleted",
    "disabled",
    "enabled",
    "logged_in",
    "logged_out",
    "logged_out_everywhere",
    "login_failed",
    "login_throttled",
    "password_changed",
    "refresh_token_reused",
    "refreshed",
    "registered",
)

events = Counter("security_events", "Security events, such as logged_in and login_failed.", ["event"])
for event in EVENTS:
    events.labels(event)
mongo_commands = Counter("mongo_commands", "Commands to MongoDB by outcome.", ["outcome"])
hashing_waiting = Gauge(
    "password_hashing_waiting", "Passwords that wait for a hashing thread.", multiprocess_mode="livesum"
)
revocations_known = Gauge(
    "revocations_known", "Ended sessions in the memory of the worker that knows most.", multiprocess_mode="livemax"
)
revocations_age = Gauge(
    "revocations_age_seconds", "Since the worker that is furthest behind has followed.", multiprocess_mode="livemax"
)


class Requests:
    """Requests by method, route and status, with how long they took to answer."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From the end of a request's header to its answer.",
            ["method", "route", "status"],
            buckets=SECONDS,
        )
        self._of: dict[tuple[str, str | None, int], Histogram] = {}  # labels are looked up once

    def count(self, request: Request[Any, Any], status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        method = request.method if request.method in METHODS else "other"
        route = request.route.path if request.route else None
        known = self._of.get((method, route, status))
        if known is None:
            path = "none" if route is None else re.sub(r"<(\w+)[^>]*>", r"<\1>", f"/{route}")
            known = self._of[method, route, status] = self._seconds.labels(method, path, status)
        known.observe(seconds)


requests = Requests()


def share() -> None:
    """Make the folder in which this process's workers count. It goes when the process ends, unless that is killed."""
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="metrics-")
    atexit.register(clean_up)


def clean_up() -> None:
    """Remove the folder."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def worker_died(pid: int) -> None:
    """Forget what a worker said of itself; what it counted stays."""
    mark_process_dead(pid)


def text() -> bytes:
    """Return everything as Prometheus reads it. Reads files."""
    if FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
