"""The example resource servers on a host of their own, which follow the services."""

import http.client
import json
import sys
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from config.product import SLUG
from tests.partition.network import Host
from tests.partition.requests import Answer, Request, with_token
from tests.partition.services import PORT as SERVICE_PORT
from tests.partition.services import Service
from tests.processes import TIMEOUT_SECONDS, Command
from tests.serving import CHECKOUT

FIRST_PORT = 9000
COMMANDS = {"python": (sys.executable, "python/resource_server.py"), "node": ("node", "node/resource_server.mjs")}


class ResourceServer:
    """A server that accepts the tokens of a service, in Python or Node."""

    def __init__(self, host: Host, number: int, language: str, service: Service) -> None:
        self.host = host
        self.name = f"{language} after {service.name}"
        self._port = FIRST_PORT + number
        self._language = language
        self.service = service
        self._command: Command | None = None

    def open(self, issuer: str, variables: Mapping[str, str]) -> None:
        """Start the server without waiting."""
        program, file = COMMANDS[self._language]
        environment = {
            **variables,
            "SERVICE_URL": f"http://{self.service.host.address}:{SERVICE_PORT}",
            "ISSUER": issuer,
            "AUDIENCE": SLUG,
            "PORT": str(self._port),
        }
        command = self.host.command(program, str(CHECKOUT / "verifiers" / file))
        self._command = Command(command, cwd=CHECKOUT, env=environment)

    def close(self, log: Path) -> None:
        """Kill the server and write its output to a file."""
        if self._command:
            log.write_text(self._command.output)
            self._command.close()
            self._command = None

    def protected(self, token: str) -> Request:
        """Return a request that any valid access token allows."""
        return with_token("/orders", token)

    def is_fresh(self) -> bool:
        """Return whether the server rejects a token that was never valid, which it does only while it is fresh."""
        return self.ask(self.protected("no.valid.token")).status == http.client.UNAUTHORIZED

    def ask(self, request: Request) -> Answer:
        """Send a request on a new connection."""
        return self.host.run(partial(self.ask_here, request))

    def ask_here(self, request: Request) -> Answer:
        """Send a request on a new connection, from a thread of this host."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)) as connection:
            try:
                connection.request(request.method, request.path, headers={"Authorization": f"Bearer {request.token}"})
                response = connection.getresponse()
                return Answer(response.status, json.loads(response.read()))
            except OSError as error:  # it does not listen yet
                return Answer(0, {"code": type(error).__name__})
