"""The cookies of the cookie mode: set, read and expired here and nowhere else (RFC 6265bis).

Browsers send them over https to this host only (`__Host-`, Secure), never with a request that another site causes
(SameSite=Strict), and show them to no script (HttpOnly). Nobody on a sibling domain can set them (cookie tossing).
"""

from collections.abc import Iterator
from typing import Any

from sanic import HTTPResponse, Request

from app.http.codes import Code
from app.http.problems import Problem

ACCESS, REFRESH = "__Host-access", "__Host-refresh"
ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"


def cookie(request: Request[Any, Any], name: str) -> str | None:
    """Return the value of one of our cookies, or None.

    Raises Problem 401 if there are two of them: one may be another user's.
    """
    values = [value for found, value in _pairs(request) if found == name]
    if len(values) > 1:
        raise Problem(Code.TOKEN_INVALID, f"There is more than one cookie {name}.")
    return values[0] if values else None


def set_cookie(response: HTTPResponse, name: str, value: str, *, seconds: int) -> None:
    """Let the browser keep a token for so long."""
    response.headers.add("set-cookie", f"{name}={value}; Max-Age={seconds}; {ATTRIBUTES}")


def expire_cookies(response: HTTPResponse) -> HTTPResponse:
    """Let the browser forget both tokens, and return the response."""
    for name in (ACCESS, REFRESH):
        set_cookie(response, name, "", seconds=0)
    return response


def _pairs(request: Request[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names and values of all cookies (RFC 6265 section 4.2.1). Names are compared with their case."""
    for line in request.headers.getall("cookie", []):
        for pair in line.split(";"):
            name, _, value = pair.strip(" ").partition("=")
            yield name, value
