"""A small HTTP client with persistent connections. It uses little time itself, so that the recorded times are exact."""

import asyncio
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.conftest import Document

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Response:
    """The status and the body of a response."""

    status: int
    body: Document

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status // 100 == 2


class Connections:
    """Persistent connections to services."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}

    async def request(
        self, method: str, url: str, path: str, *, token: str | None = None, body: Document | None = None
    ) -> Response:
        """Send a request and return the response. Raises OSError or EOFError if the connection is lost."""
        connection = await self._connection(url)
        try:
            response, persistent = await _exchange(connection, _encoded(method, path, token, body))
        except BaseException:  # also if the client gives up
            connection[1].close()
            raise
        if persistent:
            self._idle.setdefault(url, []).append(connection)
        else:
            connection[1].close()
        return response

    def close(self) -> None:
        """Close all connections."""
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()

    async def _connection(self, url: str) -> Connection:
        idle = self._idle.get(url, [])
        while idle:
            reader, writer = idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        address = urlsplit(url)
        return await asyncio.open_connection(address.hostname, address.port)


def _encoded(method: str, path: str, token: str | None, body: Document | None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    if body is not None:
        head += "Content-Type: application/json\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return f"{head}\r\n".encode() + content


async def _exchange(connection: Connection, request: bytes) -> tuple[Response, bool]:
    """Send a request; return the response and whether the connection persists."""
    reader, writer = connection
    writer.write(request)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(field.lower().split(": ", 1) for field in fields if field)
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    response = Response(int(status.split()[1]), json.loads(content) if content else {})
    return response, headers.get("connection") != "close"
