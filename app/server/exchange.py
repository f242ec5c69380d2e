"""Requests and responses of a connection: strict framing, headers on every response, metrics and access log."""

# mypy: allow-untyped-calls
# (Sanic's protocol has no types.)

from collections.abc import Mapping
from time import perf_counter
from typing import NoReturn

from sanic.compat import Header
from sanic.exceptions import BadRequest
from sanic.helpers import STATUS_CODES
from sanic.http import Http
from sanic.http.constants import Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.response.types import BaseHTTPResponse
from sanic.server.protocols.http_protocol import HttpProtocol

from app.http.client import request_id
from app.http.cors import Cors
from app.http.responses import HEADERS, Response
from app.logs import access
from app.metrics import requests
from app.server.framing import CHUNK_LINE, CHUNK_LINE_BYTES, CHUNKS, HEAD, HEAD_END, LINE_BREAK, known_fields
from app.server.handling import is_plain
from app.server.pace import BULKY_BYTES, CHUNKS_AT_ONCE
from app.server.requests import Request

NONE: Mapping[str, str] = {}
PIECE_BYTES = 32 * 1024  # of a large body
ALWAYS = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
HEADS = {status: f"HTTP/1.1 {status} {phrase.decode()}\r\n{ALWAYS}" for status, phrase in STATUS_CODES.items()}


class Exchange(Http):
    """Requests and responses of one connection."""

    __slots__ = ("_chunks", "_cors", "_is_plain")

    def __init__(self, protocol: HttpProtocol) -> None:
        super().__init__(protocol)
        self._cors: Cors | None = getattr(protocol.app.ctx, "cors", None)
        self._is_plain = is_plain(protocol.app)
        self._chunks = 0  # of the body that is being read

    async def http1_request_header(self) -> None:
        """Receive a request's head.

        A head that parsers disagree on is rejected (request smuggling, RFC 9112).

        It is checked before Sanic parses it, so that Sanic meets no target without a path.
        """
        buffer = self.recv_buffer
        while (end := buffer.find(HEAD_END)) < 0 and len(buffer) < self.HEADER_MAX_SIZE + len(HEAD_END) - 1:
            await self.protocol.receive_more()
        complete = 0 <= end < self.HEADER_MAX_SIZE
        if complete and not HEAD.fullmatch(buffer, 0, end):
            self.head_only = buffer.startswith(b"HEAD ")
            self._reject("Bad Request")
        if complete and self._is_plain and self._read_head(bytes(buffer[:end])):
            del buffer[: end + len(HEAD_END)]
        else:
            await super().http1_request_header()
            self.upgrade_websocket = False  # for a websocket, Sanic stops checking time limits (slowloris)

    def _read_head(self, head: bytes) -> bool:
        """Make a request as Sanic does, with less work. Return whether it has no body; else Sanic reads the head."""
        line, *fields = head.decode(errors="surrogateescape").split("\r\n")
        pairs = [field.split(":", 1) for field in fields]
        headers = Header([(name.lower(), value.lstrip()) for name, value in pairs])
        if "content-length" in headers or "transfer-encoding" in headers:
            return False
        method, self.url, version = line.split(" ")
        connection = headers.getall("connection", None)
        persists = connection[-1].lower() == "keep-alive" if connection else version == "HTTP/1.1"
        self.keep_alive = persists and self.protocol.app.config["KEEP_ALIVE"]  # which a stop changes
        self.head_only = method == "HEAD"
        self.request = Request(self, self.url.encode(), headers, version=version[5:], method=method, head=head)
        self.protocol.state["requests_count"] += 1
        return True

    async def read(self) -> bytes | None:
        """Read a part of the body."""
        if self.request_body == "chunked" and not self.request_bytes_left:  # type: ignore[comparison-overlap]
            await self._check_chunk_line()
        data = await super().read()
        if self._is_bulky(complete=data is None):
            await self.protocol.app.ctx.connections.pace.turn()
        return data

    def _is_bulky(self, *, complete: bool) -> bool:
        """Return whether a large body is complete, so that it is parsed next, or so many chunks have been read."""
        if complete:
            return (self.request_bytes or 0) > BULKY_BYTES
        return self.request_body == "chunked" and self._chunks % CHUNKS_AT_ONCE == 0  # type: ignore[comparison-overlap]

    async def _check_chunk_line(self) -> None:
        """Reject a chunk that parsers disagree on (request smuggling, RFC 9112 section 7.1)."""
        if self.expecting_continue:  # the client sends nothing before
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        buffer = self.recv_buffer
        while (end := buffer.find(LINE_BREAK, len(LINE_BREAK))) < 0 and len(buffer) < CHUNK_LINE_BYTES:
            await self.protocol.receive_more()
        self._chunks = self._chunks + 1 if self.request_bytes else 1
        if self._chunks > CHUNKS or not 0 < end <= CHUNK_LINE_BYTES or not CHUNK_LINE.fullmatch(buffer, 0, end):
            self._reject("Bad chunked encoding")

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send a response's head; count and log the response."""
        more = self._cors.headers(self.request) if self._cors else NONE
        response, body = self.response, b""
        if type(response) is Response and not (
            response.headers or self.head_only or self.expecting_continue or len(response.body) > PIECE_BYTES
        ):
            await self._send_whole(response, more)
        else:
            response.headers.update(more)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers["x-request-id"] = request_id(self.request)
            body = self._take_large_body()
            await super().http1_response_header(data, end_stream and not body)
        seconds = perf_counter() - self.perft0 if self.perft0 else 0.0  # an error may precede its request
        requests.count(self.request, response.status, seconds)
        if self.protocol.access_log:
            access(self.request, response.status, seconds)
        if body:
            await _send_pieces(response, body)

    async def _send_whole(self, response: Response, more: Mapping[str, str]) -> None:
        """Send head and body in one piece.

        Sanic takes a quarter of the whole request's time for the same bytes.
        """
        self.response_func = None  # type: ignore[assignment] # as Sanic marks a finished response
        head = (
            f"{HEADS[response.status]}content-type: {response.content_type}\r\ncontent-length: {len(response.body)}\r\n"
            f"x-request-id: {request_id(self.request)}\r\n"
            f"connection: {'keep-alive' if self.keep_alive else 'close'}\r\n"
        )
        if more:
            head += "".join([f"{name}: {value}\r\n" for name, value in more.items()])
        await self._send(head.encode() + LINE_BREAK + response.body)
        self.stage = Stage.IDLE

    def _take_large_body(self) -> bytes:
        """Take a large body out of the response, so that Sanic sends the head alone; it would copy both."""
        body: bytes = getattr(self.response, "body", None) or b""
        if self.head_only or len(body) <= PIECE_BYTES:
            return b""
        self.response.headers["content-length"] = len(body)
        self.response.body = None
        return body

    def _reject(self, reason: str) -> NoReturn:
        """Reject the request and close the connection, since the start of the next request is unknown."""
        self.keep_alive = False
        self.request_body = None
        raise BadRequest(reason)

    def create_empty_request(self) -> None:
        """Make a request for the response to a head that was rejected.

        It has the fields that the response depends on, such as the origin, and no URL if the URL cannot be parsed.
        """
        try:
            super().create_empty_request()
        except BadRequest:
            self.url = None
            super().create_empty_request()
        self.request.headers.extend(known_fields(self.recv_buffer))
        self.request.conn_info = self.protocol.conn_info

    def log_response(self) -> None:
        """Do nothing: `http1_response_header` writes the line."""


async def _send_pieces(response: BaseHTTPResponse, body: bytes) -> None:
    """Send a large body, each piece when the client has read most of those before (slow read).

    So few bytes are copied for a client. A static file is in memory once, however many clients do not read it.
    """
    for start in range(0, len(body), PIECE_BYTES):
        await response.send(body[start : start + PIECE_BYTES], end_stream=False)
