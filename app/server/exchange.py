"""Requests and answers of a connection, with what Sanic lacks: strict heads and framing, headers on every answer."""

# mypy: allow-untyped-calls
# (Sanic's protocol has no types.)

import re
from time import perf_counter
from typing import NoReturn

from sanic.exceptions import BadRequest
from sanic.helpers import STATUS_CODES
from sanic.http import Http
from sanic.http.constants import Stage

from app.http.client import request_id
from app.http.responses import HEADERS, Answer
from app.logs import access
from app.metrics import requests

LINE_BREAK = b"\r\n"
ALWAYS = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
HEADS = {status: f"HTTP/1.1 {status} {phrase.decode()}\r\n{ALWAYS}" for status, phrase in STATUS_CODES.items()}


# Field names followed by their colon at once, no line break of another kind, no line that goes on in the next.
WELL_FORMED = re.compile(rb"[^\r\n\0]*(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*")


class Exchange(Http):
    """Requests and answers of one connection: whatever leaves has our headers and the request's id, and is counted."""

    async def http1_request_header(self) -> None:
        """Take only a head that nobody reads otherwise: a body might pass for the next request (RFC 9112 section 5)."""
        await super().http1_request_header()
        if not WELL_FORMED.fullmatch(self.request.head):
            self._refuse("Bad Request")

    async def read(self) -> bytes | None:
        """Read a piece of the body; a chunk ends where its size says, with a line break (RFC 9112 section 7.1)."""
        if self.request_body == "chunked" and not self.request_bytes_left:  # type: ignore[comparison-overlap]
            while len(self.recv_buffer) < len(LINE_BREAK):
                await self._receive_more()
            if not self.recv_buffer.startswith(LINE_BREAK):
                self._refuse("Bad chunked encoding")
        return await super().read()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send an answer's head, and the body of one that is whole."""
        if type(self.response) is Answer and not (self.response.headers or self.head_only or self.expecting_continue):
            await self._send_whole(self.response)
        else:
            headers = self.response.headers
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = request_id(self.request)
            await super().http1_response_header(data, end_stream)
        seconds = perf_counter() - self.perft0 if self.perft0 else 0.0  # an error may come before its request
        requests.count(self.request, self.response.status, seconds)
        if self.protocol.access_log:
            access(self.request, self.response.status, seconds)

    async def _send_whole(self, answer: Answer) -> None:
        """Send all in one piece. Sanic's way to the same bytes takes a quarter of the whole request's time."""
        self.response_func = None  # type: ignore[assignment] # so Sanic says that it is over
        head = (
            f"{HEADS[answer.status]}content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
            f"x-request-id: {request_id(self.request)}\r\n"
            f"connection: {'keep-alive' if self.keep_alive else 'close'}\r\n\r\n"
        )
        await self._send(head.encode() + answer.body)
        self.stage = Stage.IDLE

    def _refuse(self, reason: str) -> NoReturn:
        """Refuse what came, and whatever may follow it on this connection: nobody knows where it begins."""
        self.keep_alive = False
        self.request_body = None
        raise BadRequest(reason)

    def create_empty_request(self) -> None:
        """Give an error that came before its request one to belong to; of an address that nobody can read, none."""
        try:
            super().create_empty_request()
        except BadRequest:
            self.url = None
            super().create_empty_request()

    def log_response(self) -> None:
        """Leave it: that line is written above."""
