"""Metrics for Prometheus. Each worker writes to files that all workers share, so that any of them can return the sum.

The environment variable that names the folder must be set before prometheus_client is imported, so the process that
starts the workers calls `share`.
"""

import atexit
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
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
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from sanic import Request

from app.clocks import boot_clock

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}  # clients invent others, counted as "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# Each counter starts at 0, or Prometheus would miss the first event.
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


def check_folder() -> None:
    """Exit with the reason if a folder that was set outside cannot be used; the first metric would raise OSError."""
    folder = os.environ.get(FOLDER)
    if folder is not None and not (Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise SystemExit(f"{FOLDER}: names no folder that can be written; unset it, the service makes its own")


check_folder()
events = Counter("security_events", "Security events, such as logged_in and login_failed.", ["event"])
for event in EVENTS:
    events.labels(event)
mongo_commands = Counter("mongo_commands", "Commands to MongoDB by outcome.", ["outcome"])
hashing_waiting = Gauge(
    "password_hashing_waiting", "Passwords that wait for a hashing thread.", multiprocess_mode="livesum"
)
revocations_known = Gauge(
    "revocations_known",
    "Ended sessions in the memory of the worker that has the most.",
    multiprocess_mode="livemax",
)
# A worker that hangs cannot tell its age, so it tells a time, and its age is computed for each response.
revocations_proven_at = Gauge(
    "revocations_proven_at_seconds",
    "When the worker that is furthest behind began its last proven look at the ended sessions, in seconds since boot.",
    multiprocess_mode="livemin",
)


class Requests:
    """Requests by method, route and status, with the time to their responses."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds from the end of a request's header to its response.",
            ["method", "route", "status"],
            buckets=SECONDS,
        )
        self._of: dict[tuple[str, str | None, int], Histogram] = {}  # labels are looked up once

    def count(self, request: Request[Any, Any], status: int, seconds: float) -> None:
        """Count a request and its response."""
        method = request.method if request.method in METHODS else "other"
        route = request.route.path if request.route else None
        known = self._of.get((method, route, status))
        if known is None:
            path = "none" if route is None else re.sub(r"<(\w+)[^>]*>", r"<\1>", f"/{route}")
            known = self._of[method, route, status] = self._seconds.labels(method, path, status)
        known.observe(seconds)


requests = Requests()


def share() -> None:
    """Make the folder for this process's workers.

    It is removed when the process ends, unless it is killed.
    """
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="metrics-")
    atexit.register(clean_up)


def clean_up() -> None:
    """Remove the folder."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def worker_died(pid: int) -> None:
    """Remove the gauges of a dead worker; its counters stay."""
    mark_process_dead(pid)


class RevocationsAge:
    """The age of the oldest proven look at the ended sessions, as of now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Compute the metric, for Prometheus's client."""
        proven_at = self._registry.get_sample_value("revocations_proven_at_seconds")
        yield GaugeMetricFamily(
            "revocations_age_seconds",
            "Seconds since the worker that is furthest behind began its last proven look at the ended sessions.",
            math.inf if proven_at is None else boot_clock() - proven_at,
        )


def text() -> bytes:
    """Return all metrics in Prometheus's format. Reads files."""
    registry = REGISTRY
    if FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    computed = CollectorRegistry(auto_describe=False)
    computed.register(RevocationsAge(registry))
    return generate_latest(registry) + generate_latest(computed)
