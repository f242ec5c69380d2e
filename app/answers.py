"""Answers with the headers that every answer of a JSON API has."""

from collections.abc import Mapping

from sanic import HTTPResponse

# What an answer says is meant for the one who asked, so nobody on the way keeps it (RFC 6749 section 5.1 demands
# it of tokens), and it is what its type says, whatever a browser makes of it.
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def answer(
    body: bytes, status: int = 200, *, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """Answer with a body that is serialized already."""
    return HTTPResponse(body, status, {**HEADERS, **headers} if headers else HEADERS, content_type)


def nothing() -> HTTPResponse:
    """Answer that it is done and there is nothing to say."""
    return HTTPResponse(None, 204, HEADERS)
