"""A persistent connection to the service, for clients that wait for many responses in one event loop."""

import asyncio
import json
from typing import Any

from bench.machine import BenchFailed


class Connection:
    """A persistent connection for sequential requests."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> "Connection":
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def request(self, method: str, path: str, token: str = "", body: dict[str, Any] | None = None) -> bytes:
        """Return the body of a successful response. Raises BenchFailed for others."""
        try:
            head, content = await self._exchange(_request(method, path, token, body))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise BenchFailed(f"{method} {path}: {error or type(error).__name__}") from error
        if not head.startswith(b"http/1.1 20"):
            status, reason = head.split(maxsplit=2)[1].decode(), content[:200].decode(errors="replace")
            raise BenchFailed(f"{method} {path}: {status} {reason}")
        return content

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _exchange(self, request: bytes) -> tuple[bytes, bytes]:
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return head, await self._reader.readexactly(length)


def _request(method: str, path: str, token: str, body: dict[str, Any] | None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: bench"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append("Content-Type: application/json")
    if method == "POST":
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content
