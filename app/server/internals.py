"""What the service uses of Sanic beyond its documentation; without one of these names a start is refused."""

from sanic import HTTPResponse, Request, __version__
from sanic.http import Http
from sanic.server.protocols.http_protocol import HttpProtocol
from sanic.worker.manager import WorkerManager

NAMES: dict[type, tuple[str, ...]] = {
    Http: (
        "HEADER_MAX_SIZE",
        "_send",
        "create_empty_request",
        "exception",
        "expecting_continue",
        "head_only",
        "http1_request_header",
        "http1_response_header",
        "keep_alive",
        "log_response",
        "perft0",
        "protocol",
        "read",
        "recv_buffer",
        "request",
        "request_body",
        "request_bytes",
        "request_bytes_left",
        "response",
        "response_func",
        "stage",
        "upgrade_websocket",
        "url",
    ),
    HttpProtocol: (
        "_task",
        "_time",
        "abort",
        "access_log",
        "app",
        "check_timeouts",
        "close",
        "conn_info",
        "http",
        "keep_alive_timeout",
        "log_disconnect",
        "receive_more",
        "request_handler",
        "request_timeout",
        "state",
        "transport",
    ),
    HTTPResponse: ("_cookies",),
    Request: ("_current", "_parsed_url"),
    WorkerManager: ("_all_workers_ack", "_poll_monitor", "_sync_states"),
}


def require() -> None:
    """Exit with a message if the installed release of Sanic lacks one of the names."""
    lacks = [f"{owner.__name__}.{name}" for owner, names in NAMES.items() for name in names if not hasattr(owner, name)]
    if lacks:
        raise SystemExit(f"Sanic {__version__} lacks {', '.join(lacks)}: install the release of requirements.txt")
