"""Services that tests put behind the load balancer in place of real ones."""

import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Stub(http.server.BaseHTTPRequestHandler):
    """A service that is ready, and whose subclasses say how it responds to other requests."""

    protocol_version = "HTTP/1.1"
    received: Counter[str]  # the requests by their first line

    def do_GET(self) -> None:
        """Respond to a request for the health, or to another one."""
        self.received[self.requestline] += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/health"):
            self.answer(b"")
        else:
            self.serve()

    do_POST = do_OPTIONS = do_GET  # noqa: N815 - the names that http.server calls

    def serve(self) -> None:
        """Respond, or close the connection without a response."""
        raise NotImplementedError

    def answer(self, body: bytes) -> None:
        """Send a response with the request id, as the service does."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-ID", self.headers.get("X-Request-ID", "none"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Unresponsive(Stub):
    """A service that closes the connection of a POST request, and of the first request to a path."""

    def serve(self) -> None:
        """Respond only to a request of a safe method that is repeated."""
        if self.command != "POST" and self.received[self.requestline] > 1:
            self.answer(b"")
        else:
            self.close_connection = True


class Echo(Stub):
    """A service that responds with the headers of the request."""

    stopping = threading.Event()

    def serve(self) -> None:
        """Respond; to /close with a closed connection, to /silent not until the stub stops."""
        if self.path == "/close":
            self.close_connection = True
        elif self.path == "/silent":
            self.stopping.wait()
            self.close_connection = True
        else:
            self.answer(json.dumps({name.lower(): value for name, value in self.headers.items()}).encode())


class Server(http.server.ThreadingHTTPServer):
    """A server of stubs."""

    def handle_error(self, *_: object) -> None:
        """Print nothing: the load balancer resets connections of health checks."""


@contextmanager
def running(stub: type[Stub]) -> Iterator[tuple[str, Counter[str]]]:
    """Run a stub; yield its address and the number of its requests by request line."""
    received, stopping = Counter[str](), threading.Event()
    handler = type("Handler", (stub,), {"received": received, "stopping": stopping})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", received
        finally:
            stopping.set()
            server.shutdown()
            thread.join()
