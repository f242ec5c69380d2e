"""CORS (Fetch standard), so that scripts of other origins can call the service; and automatic HEAD and OPTIONS.

sanic-ext makes the latter. Its CORS answers no preflight of an unknown path, and marks only those responses as varying
that an allowed origin receives; its dependency injection would cost a fifth of the throughput; and its documentation
pages load files from another host: app/openapi has the service's own.
"""

import re
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import BaseHTTPResponse
from sanic_ext.extensions.http.extension import HTTPExtension

from app.http.responses import no_content

ANY = "*"
MAX_AGE_SECONDS = 3600
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RESPONSE_HEADERS = "allow,retry-after,www-authenticate,x-request-id"  # that scripts may read
METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)  # a token (RFC 9110 section 5.6.2)


class Cors:
    """The origins whose scripts may call the service with tokens, but never with cookies.

    Origins are compared as a whole. A response that depends on the origin says so (`Vary`), also if there is none.
    """

    def __init__(self, origins: list[str], request_headers: list[str]) -> None:
        self._origins = frozenset(origins)
        self._request_headers = request_headers

    def preflight(self, request: Request[Any, Any]) -> HTTPResponse | None:
        """Respond to a preflight of any path and method; None if the request is none.

        If it were refused, the browser would not send the request, and no script could read why it is refused.
        """
        headers = request.headers
        method = headers.getone("access-control-request-method", "")
        if request.method != "OPTIONS" or not method or "origin" not in headers:
            return None
        response = no_content()
        if self._allowed(request):
            asked = ",".join(headers.getall("access-control-request-headers", [])).lower().split(",")
            sendable = {name.strip() for name in asked}.intersection(self._request_headers)
            methods = METHODS if method in METHODS or not METHOD.fullmatch(method) else (*METHODS, method)
            response.headers["access-control-allow-methods"] = ",".join(methods)
            response.headers["access-control-allow-headers"] = ",".join(sorted(sendable))
            response.headers["access-control-max-age"] = str(MAX_AGE_SECONDS)
        return response

    def mark(self, request: Request[Any, Any], response: BaseHTTPResponse) -> None:
        """Let scripts of allowed origins read the response, which may be an error."""
        if ANY not in self._origins:
            response.headers.add("vary", "Origin")
        if allowed := self._allowed(request):
            response.headers["access-control-allow-origin"] = allowed
            response.headers["access-control-expose-headers"] = RESPONSE_HEADERS

    def _allowed(self, request: Request[Any, Any]) -> str | None:
        """Return what the response names as the allowed origin."""
        if ANY in self._origins:
            return ANY
        origins = request.headers.getall("origin", [])
        return origins[0] if len(origins) == 1 and origins[0] in self._origins else None


def enable(app: Sanic[Any, Any], *, origins: list[str], request_headers: list[str]) -> None:
    """Extend the app; without origins, CORS costs nothing."""
    app.config.CORS = False
    app.extend(built_in_extensions=False, extensions=[HTTPExtension])
    if origins:
        cors = Cors(origins, request_headers)
        app.register_middleware(cors.preflight, "request")
        app.register_middleware(cors.mark, "response")
