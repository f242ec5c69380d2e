"""The service, and static sites of other origins, for pages in a browser.

Chromium resolves each name that ends with `.localhost` to this machine, keeps Secure cookies there, and takes the last
two labels for the site: app.demo.localhost is on the same site as api.demo.localhost, evil.localhost is not.
"""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import drop_database
from tests.processes import Command
from tests.serving import started


@contextmanager
def one_worker(uri: str, *options: str, port: int = 0, variables: Mapping[str, str]) -> Iterator[tuple[Command, int]]:
    """Run the service, and yield its command and port. At the end it must stop without a traceback.

    With one worker, because the browser chooses its connections, and a logout reaches other workers a moment later.
    """
    with started(uri, "--workers=1", *options, port=port, variables=variables) as (command, port):
        command.wait_for(f"http://127.0.0.1:{port}/health/ready")
        yield command, port
        command.send(signal.SIGTERM)
        assert command.wait() == 0, command.output
        assert "Traceback" not in command.output, command.output
    drop_database(uri)


class StaticFiles(SimpleHTTPRequestHandler):
    """Files of a folder with a Content-Security-Policy, for every host; and below /api a reverse proxy."""

    def __init__(self, *arguments: Any, policy: str, service: int, **options: Any) -> None:
        self._policy = policy
        self._service = service
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        """Send a file, or what the service responds."""
        if self.path.startswith("/api/"):
            self._forward()
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Send what the service responds."""
        self._forward()

    def _forward(self) -> None:
        """Strip the prefix, as nginx does for `location /api/ { proxy_pass http://app:8000/; }`."""
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        url = f"http://127.0.0.1:{self._service}{self.path.removeprefix('/api')}"
        with httpx.Client(trust_env=False) as client:
            response = client.request(self.command, url, headers=self.headers.items(), content=content)
        self.send_response_only(response.status_code)
        for name, value in response.headers.multi_items():
            self.send_header(name, value)
        super().end_headers()
        self.wfile.write(response.content)

    def end_headers(self) -> None:
        """Add the policy."""
        self.send_header("Content-Security-Policy", self._policy)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def static_site(folder: Path, *, policy: str = "", service: int = 0) -> Iterator[int]:
    """Serve a folder, and the service of a port below /api; yield the port of the site."""
    handler = partial(StaticFiles, directory=str(folder), policy=policy, service=service)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
