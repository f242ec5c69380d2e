"""What the service writes down: one line for each event, and never a secret."""

import json
import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter
from sanic import Request
from sanic.log import LOGGING_CONFIG_DEFAULTS

from app.http.client import address, request_id
from app.metrics import events

JSON_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
TEXT_FIELDS = "%(asctime)s %(levelname)s %(message)s"
# A terminal obeys some control characters; lines of a traceback end as they do.
HARMLESS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
audit_logger = logging.getLogger("audit")
access_logger = logging.getLogger("sanic.access")


def audit(event: str, **facts: Any) -> None:
    """Write down and count a security event, with its facts and the request that it belongs to."""
    events.labels(event).inc()
    request: Request[Any, Any] | None = Request._current.get(None)
    caller = {"address": address(request), "request_id": request_id(request)} if request else {}
    audit_logger.info(event, extra={"facts": {"event": event, **facts, **caller}})


def access(request: Request[Any, Any], status: int, seconds: float) -> None:
    """Write down that a request was answered; its path without the query, which may say what is nobody's business."""
    facts = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "address": address(request),
        "request_id": request_id(request),
    }
    access_logger.info("answered", extra={"facts": facts})


class Text(logging.Formatter):
    """For people: the message, then the facts; quoted, so that no text from outside can begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the facts behind the message."""
        facts = getattr(record, "facts", {})
        words = [f"{name}={json.dumps(value)}" for name, value in facts.items() if name != "event"]
        return " ".join([super().format(record), *words]).translate(HARMLESS)


class Json(JsonFormatter):
    """For programs: one object a line, the facts beside the message."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Lift the facts to the top."""
        facts = log_data.pop("facts", {})
        return {**log_data, **facts}


def configuration(log_format: str) -> dict[str, Any]:
    """Return what Sanic takes as log_config: its own, with our formatters and the audit trail."""
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
