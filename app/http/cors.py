"""CORS (Fetch standard), so that scripts of other origins can call the service."""

import re
from collections.abc import Mapping
from typing import Any

from sanic import Request, Sanic

ANY = "*"
MAX_AGE_SECONDS = 3600
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)  # a token (RFC 9110 section 5.6.2)
EXPOSED = {"access-control-expose-headers": "allow,retry-after,www-authenticate,x-request-id"}
CREDENTIALS = {"access-control-allow-credentials": "true"}
ALLOWED = "access-control-allow-origin"
VARY = {"vary": "Origin"}  # also without an origin, or a cache would give this response to all origins


class Cors:
    """The origins whose scripts may call the service, with cookies only if `credentials` says so.

    Origins are compared as a whole. Where every origin is allowed, none may use cookies.
    """

    def __init__(self, origins: list[str], request_headers: list[str], *, credentials: bool = False) -> None:
        self._request_headers = frozenset(request_headers)
        self._of: dict[str, Mapping[str, str]] = {}
        self._of_others: Mapping[str, str] = VARY
        if ANY in origins:
            self._of_others = {ALLOWED: ANY, **EXPOSED}
        else:
            permissions = {**EXPOSED, **(CREDENTIALS if credentials else {})}
            self._of = {origin: {**VARY, ALLOWED: origin, **permissions} for origin in origins}

    def headers(self, request: Request[Any, Any]) -> Mapping[str, str]:
        """Return headers that let scripts of allowed origins read the response, which may be an error."""
        origins = request.headers.getall("origin", [])
        headers = self._of.get(origins[0], self._of_others) if len(origins) == 1 else self._of_others
        if is_preflight(request) and ALLOWED in headers:
            return {**headers, **self._permissions(request)}
        return headers

    def _permissions(self, request: Request[Any, Any]) -> Mapping[str, str]:
        """Return what a script may send: any method, since a browser would hide why the service refuses it."""
        method = request.headers["access-control-request-method"]
        methods = METHODS if method in METHODS or not METHOD.fullmatch(method) else (*METHODS, method)
        asked = ",".join(request.headers.getall("access-control-request-headers", [])).lower().split(",")
        return {
            "access-control-allow-methods": ",".join(methods),
            "access-control-allow-headers": ",".join(sorted(self._request_headers & {name.strip() for name in asked})),
            "access-control-max-age": str(MAX_AGE_SECONDS),
        }


def is_preflight(request: Request[Any, Any]) -> bool:
    """Return whether a browser asks what a script may send (Fetch standard, section 3.2.2)."""
    headers = request.headers
    return request.method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def enable(app: Sanic[Any, Any], *, origins: list[str], request_headers: list[str], credentials: bool) -> None:
    """Set what server/exchange.py adds to responses."""
    app.ctx.cors = Cors(origins, request_headers, credentials=credentials) if origins else None
