"""Any bytes as the request line, over a raw socket: no server error, no traceback, no connection without an answer."""

import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config import Config
from tests.conftest import Service
from tests.properties import repeatable
from tests.test_errors import raw

FIELDS = b"\r\nHost: x\r\n\r\n"
NEXT = b"GET /tests/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATHS = (
    "",
    "/",
    "//",
    "/docs",
    "/users",
    "/users/" + 24 * "0",
    "/auth/sessions",
    "/tests/hello",
    "/%00",
    "/%ff",
    "/..",
)

any_bytes = st.binary(max_size=40)
methods = (
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"DELETE", b"CONNECT", b"get", b"PRI", b""]) | any_bytes
)
schemes = st.sampled_from(["", "http:", "http://", "https://", "HTTP://", "ftp://", "urn:", "://", "//"])
authorities = st.sampled_from(["", "x", "x:80", "x:", "x:99999", "u@x", "u:p@x", "[::1]", "[::1", "[::1]:80", "@", ":"])
paths = st.sampled_from(PATHS) | st.integers(1, 3000).map("/".__mul__) | st.text("/.%~a0\\;", max_size=40)
queries = st.sampled_from(["", "?", "?a", "?a=1&a=2", "??", "#", "#a", "?a#b", "#?", "?after=%ff&limit=x", "*"])
targets = (
    st.tuples(schemes, authorities, paths, queries).map(lambda parts: "".join(parts).encode())
    | st.sampled_from([b"*", b"", b"x:80"])
    | any_bytes
)
separators = st.sampled_from([b" ", b" ", b" ", b"  ", b"\t", b""])
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/", b""]) | any_bytes
request_lines = st.tuples(methods, separators, targets, separators, versions).map(b"".join) | st.binary(max_size=100)


class Tracebacks(logging.Handler):
    """A log handler that stores the records with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the record if it has a traceback."""
        if record.exc_info:
            self.found.append(record)


@pytest.fixture
def tracebacks() -> Iterator[Tracebacks]:
    """Collect the tracebacks that any logger writes."""
    handler = Tracebacks()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="module", params=[False, True], ids=["no access log", "access log"])
def served(config: Config, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Run a service with and without an access log."""
    with Service(config.model_copy(update={"ACCESS_LOG": request.param})) as service:
        yield service


def test_no_request_line_is_a_server_error(served: Service, tracebacks: Tracebacks) -> None:
    """The request that follows on the connection is answered too, unless the first one is rejected."""

    @repeatable(400)
    @example(b"GET http://x HTTP/1.1")
    @example(b"GET http://x?a HTTP/1.1")
    @example(b"OPTIONS * HTTP/1.1")
    @example(b"GET " + 3000 * b"/" + b" HTTP/1.1")
    @given(request_lines)
    def send(line: bytes) -> None:
        response = raw(served, line + FIELDS + NEXT)
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", response)]
        assert statuses, "the connection was closed without an answer"
        assert all(200 <= status < 500 for status in statuses)
        assert statuses[-1] == 200 or b"connection: close" in response
        assert not tracebacks.found

    send()
