"""A reverse proxy that strips a prefix of the path.

As nginx does for `location /api/ { proxy_pass http://app:8000/; }`, or Traefik's StripPrefix.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class PrefixProxy:
    """The proxy. It handles one request for each connection, and answers 404 to paths without the prefix."""

    def __init__(self, host: str, port: int, prefix: str) -> None:
        self._service = host, port
        self._prefix = prefix.encode()
        self.lines: list[str] = []  # the request lines that it received

    async def handle(self, client: asyncio.StreamReader, response: asyncio.StreamWriter) -> None:
        """Forward one request, and stream the response."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client opens connections in advance
            method, target, rest = (await client.readuntil(b"\r\n\r\n")).split(b" ", 2)
            self.lines.append(f"{method.decode()} {target.decode()}")
            if target.startswith(self._prefix + b"/"):
                await self._forward(method, target.removeprefix(self._prefix), rest, client, response)
            else:
                response.write(NOT_FOUND)
                await response.drain()
        response.close()

    async def _forward(
        self, method: bytes, target: bytes, rest: bytes, client: asyncio.StreamReader, response: asyncio.StreamWriter
    ) -> None:
        upstream, request = await asyncio.open_connection(*self._service)
        version, *fields = rest.split(b"\r\n")
        kept = [field for field in fields if field and not field.lower().startswith(b"connection:")]
        request.write(b"\r\n".join([b" ".join([method, target, version]), *kept, b"Connection: close", b"", b""]))
        lengths = [field.partition(b":")[2] for field in kept if field.lower().startswith(b"content-length:")]
        if lengths:
            request.write(await client.readexactly(int(lengths[0])))
        while part := await upstream.read(65536):
            response.write(part)
            await response.drain()
        request.close()


@contextmanager
def prefix_proxy(host: str, port: int, prefix: str) -> Iterator[tuple[PrefixProxy, str]]:
    """Run a proxy in front of the service in a thread; yield it and the URL of the service behind it."""
    proxy = PrefixProxy(host, port, prefix)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def serve() -> None:
        stopping = asyncio.Event()
        async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0) as server:
            started.set_result((asyncio.get_running_loop(), stopping, server.sockets[0].getsockname()[1]))
            await stopping.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, stopping, proxy_port = started.result()
    try:
        yield proxy, f"http://127.0.0.1:{proxy_port}{prefix}"
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
