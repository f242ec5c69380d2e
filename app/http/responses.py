"""Answers, and the headers that every answer of a JSON API has."""

from collections.abc import Mapping

from sanic import HTTPResponse
from sanic.compat import Header

# What an answer says is meant for the one who asked, so nobody on the way keeps it (RFC 6749 section 5.1 demands
# it of tokens), and it is what its type says, whatever a browser makes of it. connections.py puts them on.
HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Answer(HTTPResponse):
    """A whole body. Made in half the time, because HTTPResponse makes its headers twice."""

    body: bytes

    def __init__(self, body: bytes, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.asgi = False
        self.body = body
        self.status = status
        self.content_type = content_type
        self.headers = Header(headers)
        self.stream = None
        self._cookies = None


def answer(
    body: bytes, status: int = 200, *, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """Answer with a body that is serialized already."""
    return Answer(body, status, content_type, headers or {})


def nothing() -> HTTPResponse:
    """Answer that it is done and there is nothing to say."""
    return HTTPResponse(None, 204)
