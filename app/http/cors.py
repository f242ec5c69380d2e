"""CORS, and automatic HEAD and OPTIONS: the part of sanic-ext that this service uses.

Its dependency injection would cost a fifth of the throughput, its CORS costs something even without an origin, and its
documentation pages load files from another host; app/openapi has the service's own.
"""

from typing import Any

from sanic import Sanic
from sanic_ext.extensions.http.extension import HTTPExtension

CORS_MAX_AGE_SECONDS = 3600
REQUEST_HEADERS = ["authorization", "content-type", "x-request-id"]
RESPONSE_HEADERS = ["retry-after", "www-authenticate", "x-request-id"]


def enable(app: Sanic[Any, Any], *, cors_origins: list[str]) -> None:
    """Extend the app.

    Scripts of these origins may call it with tokens, but never with cookies.
    """
    app.config.update(
        CORS=bool(cors_origins),
        CORS_ORIGINS="*" if "*" in cors_origins else cors_origins,
        CORS_ALWAYS_SEND=False,
        CORS_ALLOW_HEADERS=REQUEST_HEADERS,
        CORS_EXPOSE_HEADERS=RESPONSE_HEADERS,
        CORS_MAX_AGE=CORS_MAX_AGE_SECONDS,
    )
    app.extend(built_in_extensions=False, extensions=[HTTPExtension])
