"""The service's log: one line for each event, and never a secret."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import tracerite
from pythonjsonlogger.json import JsonFormatter
from sanic import Request
from sanic.log import LOGGING_CONFIG_DEFAULTS, error_logger

from app.clocks import timestamp
from app.http.client import client, request_id

JSON_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
TEXT_FIELDS = "%(asctime)s %(levelname)s %(message)s"
# Terminals interpret control characters, and take some for the end of a line (log injection, CWE-117). Lone surrogates,
# which stand for a client's bytes, cannot be written.
CONTROLS = (*range(32), *range(127, 160), 0x2028, 0x2029, *range(0xD800, 0xE000))
ESCAPED = {code: ascii(chr(code))[1:-1] for code in CONTROLS if chr(code) not in "\n\t"}
ESCAPED_IN_MESSAGES = {code: text for code, text in ESCAPED.items() if chr(code) != "\x1b"}  # Sanic's have colours
WARNINGS = {"level": "WARNING", "handlers": ["error_console"], "propagate": True}  # of the module `warnings`
access_logger = logging.getLogger("sanic.access")


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


class Formatter(logging.Formatter):
    """A formatter whose times have a zone."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """Return the record's time in UTC."""
        return timestamp(datetime.fromtimestamp(record.created, UTC))


class Text(Formatter):
    """For people: the message, then the facts, then the lines of a traceback.

    All lines but the first are indented, so that no client can start one that looks like a record (log injection).
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        return super().format(record).translate(ESCAPED_IN_MESSAGES).replace("\n", "\n  ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Append the facts to the message, quoted as JSON."""
        facts = getattr(record, "facts", {})
        words = [f"{name}={json.dumps(value).translate(ESCAPED)}" for name, value in facts.items() if name != "event"]
        return " ".join([super().formatMessage(record), *words])

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """Escape control characters, since exceptions may quote clients."""
        return super().formatException(ei).translate(ESCAPED)


class Json(Formatter, JsonFormatter):
    """For programs: one JSON object a line, the facts beside the message, a traceback in `exc_info`."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Move the facts to the top level."""
        facts = log_data.pop("facts", {})
        return {**log_data, **facts}


def configuration(log_format: str, audit_file: str | None = None) -> dict[str, Any]:
    """Return the `log_config` for Sanic.

    It is Sanic's own, with these formatters and the audit trail.

    The trail goes to `audit_file` alone, if there is one: other lines cannot displace it. The file may be rotated.
    """
    formatter: dict[str, Any] = {
        "text": {"()": Text, "fmt": TEXT_FIELDS},
        "json": {"()": Json, "fmt": JSON_FIELDS, "rename_fields": {"asctime": "time", "levelname": "level"}},
    }[log_format]
    audit_trail = {"level": "INFO", "handlers": ["audit" if audit_file else "console"], "propagate": not audit_file}
    handlers = {**LOGGING_CONFIG_DEFAULTS["handlers"]}
    if audit_file:
        handlers["audit"] = {
            "class": "logging.handlers.WatchedFileHandler",
            "filename": audit_file,
            "encoding": "utf-8",
            "formatter": "generic",
        }
    return {
        **LOGGING_CONFIG_DEFAULTS,
        "handlers": handlers,
        "loggers": {**LOGGING_CONFIG_DEFAULTS["loggers"], "audit": audit_trail, "py.warnings": WARNINGS},
        "formatters": {"generic": formatter, "access": formatter},
    }


def take_over(log_format: str) -> None:
    """Log what this process would otherwise write to standard error in other forms.

    These are warnings, uncaught exceptions, and the records of loggers without a handler, such as asyncio's.
    """
    # Sanic's command line loads it: it writes tracebacks past the formatters, as drawings, with the values of local
    # variables, which may be passwords.
    tracerite.unload()
    options = dict(configuration(log_format)["formatters"]["generic"])
    if logging.lastResort:
        logging.lastResort.setFormatter(options.pop("()")(**options))
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    sys.unraisablehook = lambda failed: log_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)
    threading.excepthook = lambda failed: log_uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)


def log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log an exception that nothing has caught.

    The end of a thread is no such exception, and Ctrl-C keeps its usual form.
    """
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), traceback)
    elif not issubclass(kind, SystemExit):
        error_logger.critical("uncaught exception", exc_info=(kind, error or kind(), traceback))
