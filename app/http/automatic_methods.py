"""Automatic HEAD and OPTIONS (RFC 9110 sections 9.3.2 and 9.3.7), by sanic-ext.

The rest of sanic-ext is off. Its CORS answers no preflight of an unknown path, and marks only those responses as
varying that an allowed origin receives. Its dependency injection would cost a fifth of the throughput. Its pages of
documentation load files from another host. app/http/cors.py and app/openapi are the service's own.
"""

from collections.abc import Callable
from typing import Any

from sanic import Sanic
from sanic_ext.extensions.http.methods import add_auto_handlers

Listener = Callable[[Any], None]


class BeforeStart:
    """An app for which sanic-ext's listener runs at once.

    At the start, Sanic would compile all signals again for each route that the listener adds: 0.3 s for every worker.
    """

    def __init__(self, app: Sanic[Any, Any]) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def before_server_start(self, *, priority: int) -> Callable[[Listener], None]:  # noqa: ARG002 - sanic-ext's name
        """Return what calls a listener with this app."""
        return lambda listener: listener(self)

    def finalize(self) -> None:
        """Leave that to the start."""


def add(app: Sanic[Any, Any]) -> None:
    """Add HEAD where there is GET, and OPTIONS everywhere. To be called when all other routes are there."""
    app.config.CORS = False
    app.extend(built_in_extensions=False)
    add_auto_handlers(BeforeStart(app), auto_head=True, auto_options=True, auto_trace=False)  # type: ignore[arg-type]
