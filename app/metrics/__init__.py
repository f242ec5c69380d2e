"""Metrics for Prometheus. All workers write to shared files, so that any of them can return the sum."""

import math
import re
from collections.abc import Iterator
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
from prometheus_client.multiprocess import MultiProcessCollector
from sanic import Request
from sanic.log import error_logger

from app.clocks import boot_clock
from app.metrics import files
from app.metrics.batches import Batch

files.declare()
CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}  # clients invent others, counted as "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# Each counter starts at 0, or Prometheus would miss the first event.
EVENTS = (
    "access_changed",
    "code_rejected",
    "deleted",
    "disabled",
    "email_claimed",
    "email_removed",
    "email_restored",
    "email_verified",
    "enabled",
    "forbidden",
    "key_dropped",
    "key_rotated",
    "keys_made",
    "logged_in",
    "logged_out",
    "logged_out_everywhere",
    "login_failed",
    "login_throttled",
    "passkey_copied",
    "passkey_rejected",
    "password_changed",
    "password_reset",
    "recovery_code_used",
    "recovery_codes_replaced",
    "refresh_rejected",
    "refresh_token_reused",
    "refreshed",
    "registered",
    "registration_throttled",
    "reset_requested",
    "reset_started",
    "reset_throttled",
    "second_factor_added",
    "second_factor_failed",
    "second_factor_removed",
    "second_factor_reset",
    "session_displaced",
    "stepped_up",
)

events = Counter("security_events", "Security events, such as logged_in and login_failed.", ["event"])
for event in EVENTS:
    events.labels(event)
mongo_commands = Counter("mongo_commands", "Commands to MongoDB by outcome.", ["outcome"])
mails = Counter("mails", "What was done with mails of the outbox.", ["outcome"])
for outcome in ("sent", "failed", "dropped", "dead"):
    mails.labels(outcome)
mails_waiting = Gauge("mails_waiting", "Mails that wait to be sent.", multiprocess_mode="livemax")
mails_dead = Gauge("mails_dead", "Mails of the last week that could not be sent.", multiprocess_mode="livemax")
mails_oldest = Gauge(
    "mails_oldest_seconds", "How long the oldest mail that waits has waited.", multiprocess_mode="livemax"
)
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
connections_open = Gauge("connections_open", "Open connections of clients.", multiprocess_mode="livesum")
connections_left = Gauge(
    "connections_left",
    "Connections that the worker with the most open ones can still keep open.",
    multiprocess_mode="livemin",
)
connections_exhausted = Counter(
    "connections_exhausted", "What workers without room for another connection did.", ["event"]
)
for event in ("closed", "limited", "refused", "no_file"):
    connections_exhausted.labels(event)


class Requests:
    """Requests by method, route and status, with the time to their responses."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds from the end of a request's header to its response.",
            ["method", "route", "status"],
            buckets=SECONDS,
        )
        self._of: dict[tuple[str, str | None, int], Batch | None] = {}  # labels are looked up once

    def count(self, request: Request[Any, Any], status: int, seconds: float) -> None:
        """Count a request and its response."""
        method = request.method if request.method in METHODS else "other"
        route = request.route.path if request.route else None
        known = self._of.get((method, route, status))
        if known is None and (method, route, status) not in self._of:
            known = self._of[method, route, status] = self._labelled(method, route, status)
        if known is not None:
            known.observe(seconds)

    def _labelled(self, method: str, route: str | None, status: int) -> Batch | None:
        """Return the histogram for these labels, or None if the disk has no space for it."""
        path = "none" if route is None else re.sub(r"<(\w+)[^>]*>", r"<\1>", f"/{route}")
        try:
            return Batch(self._seconds.labels(method, path, status), SECONDS)
        except OSError as error:
            error_logger.error("%s %s with status %s is not counted: %s", method, path, status, error.strerror)
            return None


requests = Requests()


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
    if files.shared():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    computed = CollectorRegistry(auto_describe=False)
    computed.register(RevocationsAge(registry))
    return generate_latest(registry) + generate_latest(computed)
