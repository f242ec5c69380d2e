"""The service's log: one line for each event, and never a secret."""

import json
import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from sanic import Request
from sanic.log import LOGGING_CONFIG_DEFAULTS

from app.http.client import client, current_request, request_id
from app.metrics import events

JSON_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
TEXT_FIELDS = "%(asctime)s %(levelname)s %(message)s"
# Terminals interpret control characters (log injection, CWE-117); line feeds and tabs of tracebacks stay.
ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
audit_logger = logging.getLogger("audit")
access_logger = logging.getLogger("sanic.access")


def audit(event: str, **facts: Any) -> None:
    """Log and count a security event, with its facts and the request that caused it."""
    events.labels(event).inc()
    request = current_request()
    caller = {"address": client(request).address, "request_id": request_id(request)} if request else {}
    audit_logger.info(event, extra={"facts": {"event": event, **facts, **caller}})


def access(request: Request[Any, Any], status: int, seconds: float) -> None:
    """Log a response, with the request's path but not its query, which may hold personal data."""
    facts = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "address": client(request).address,
        "request_id": request_id(request),
    }
    access_logger.info("response", extra={"facts": facts})


class Text(logging.Formatter):
    """For people: the message, then the facts.

    Facts are quoted as JSON, and tracebacks escaped, so that no client can start a line of its own (log injection).
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Append the facts to the message."""
        facts = getattr(record, "facts", {})
        words = [f"{name}={json.dumps(value).translate(ESCAPED)}" for name, value in facts.items() if name != "event"]
        return " ".join([super().formatMessage(record), *words])

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """Escape control characters, since exceptions may quote clients."""
        return super().formatException(ei).translate(ESCAPED)


class Json(JsonFormatter):
    """For programs: one JSON object a line, the facts beside the message."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Move the facts to the top level."""
        facts = log_data.pop("facts", {})
        return {**log_data, **facts}


def configuration(log_format: str) -> dict[str, Any]:
    """Return the `log_config` for Sanic: its own, with these formatters and the audit trail."""
    formatter: dict[str, Any] = {
        "text": {"()": Text, "fmt": TEXT_FIELDS},
        "json": {"()": Json, "fmt": JSON_FIELDS, "rename_fields": {"asctime": "time", "levelname": "level"}},
    }[log_format]
    audit_trail = {"level": "INFO", "handlers": ["console"], "propagate": True}
    return {
        **LOGGING_CONFIG_DEFAULTS,
        "loggers": {**LOGGING_CONFIG_DEFAULTS["loggers"], "audit": audit_trail},
        "formatters": {"generic": formatter, "access": formatter},
    }
