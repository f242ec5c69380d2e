"""Responses with a whole body, and the headers that every response has."""

from collections.abc import Mapping

from sanic import HTTPResponse
from sanic.compat import Header

# Responses are for one client, so no cache stores them (RFC 6749 section 5.1 requires it of tokens), and browsers must
# not guess their type. server/exchange.py adds these headers.
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Response(HTTPResponse):
    """A response with a whole body.

    Made in half the time of HTTPResponse, which makes its headers twice.
    """

    body: bytes

    def __init__(self, body: bytes, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.asgi = False
        self.body = body
        self.status = status
        self.content_type = content_type
        self.headers = Header(headers)
        self.stream = None
        self._cookies = None


def respond(
    body: bytes, status: int = 200, *, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """Make a response of a serialized body."""
    return Response(body, status, content_type, headers or {})


def accepted() -> HTTPResponse:
    """Make an empty response to what is done later."""
    return HTTPResponse(None, 202)


def no_content() -> HTTPResponse:
    """Make a response without a body."""
    return HTTPResponse(None, 204)
