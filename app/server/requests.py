"""Requests that cost little: what most of them never use is made when it is asked for."""

from collections import defaultdict
from functools import cached_property
from typing import Any

import sanic
from httptools import HttpParserInvalidURLError, parse_url
from sanic.compat import Header
from sanic.exceptions import BadURL

EMPTY = (None, False, 0, b"")


class Given(sanic.Request[Any, Any]):
    """A request with those fields that each request has of its own."""

    def __init__(self, http: Any, url: bytes, headers: Header, *, version: str, method: str, head: bytes) -> None:
        self.raw_url = url
        try:
            self._parsed_url = parse_url(url)
        except HttpParserInvalidURLError:
            raise BadURL("Bad URL") from None
        self.headers = headers
        self.version = version
        self.method = method
        self.head = head
        self.stream = http
        self.app = http.protocol.app
        self.transport = http.protocol.transport
        self.match_info = {}
        self._current.set(self)


def _defaults() -> dict[str, Any]:
    """Return the fields that are empty in a new request of Sanic, as attributes of a class."""
    new: sanic.Request[Any, Any] = sanic.Request(b"/", Header(), "1.1", "GET", None, None)  # type: ignore[arg-type]
    fields = {name: getattr(new, name, ...) for name in sanic.Request.__slots__ if name != "__weakref__"}
    return {name: _default(value) for name, value in fields.items() if value in EMPTY or isinstance(value, defaultdict)}


def _default(value: Any) -> Any:
    """Return what stands for a value in a class: requests must not share what can be changed."""
    return cached_property(lambda _: value.copy()) if isinstance(value, defaultdict) else value


# Sanic's constructor sets thirty fields, which takes a tenth of a small request's time.
Request: type[Given] = type("Request", (Given,), _defaults())
