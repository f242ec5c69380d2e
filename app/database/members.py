"""What each server answered last, so that the log says why there is no primary."""

import re
from threading import Lock
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.hello import Hello
from pymongo.monitoring import (
    ServerClosedEvent,
    ServerDescriptionChangedEvent,
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
    ServerListener,
    ServerOpeningEvent,
)
from pymongo.uri_parser import parse_uri

from app.database.failures import cleaned

CLOSING = "operation cancelled"  # the driver's message when it closes a monitor itself
# What the driver says of a connection, and what it means.
MEANINGS = (
    (r"timed out", "there is no answer"),
    (r"Name or service not known|nodename nor servname|name resolution|No address associated", "the name is not known"),
    (r"Connection refused", "the connection is refused"),
    (r"certificate verify failed: (?P<why>.*)|CertificateError: (?P<other>.*)", "the certificate is rejected"),
    (
        r"SSL handshake failed|\[SSL",
        "there is no TLS connection: is it a TLS server?",
    ),
    (r"connection closed|Connection reset", "the server closes the connection: does it require TLS?"),
    (r"Got response id|Unknown opcode|[Mm]essage length", "the server does not speak MongoDB's protocol"),
)


class Members(ServerHeartbeatListener, ServerListener):
    """A listener for the driver's monitor, which calls it in threads of its own."""

    def __init__(self, uri: str) -> None:
        self._lock = Lock()
        self._states: dict[str, str | None] = dict.fromkeys(_seeds(uri), "there is no answer")
        self._other_set: set[str] = set()
        self.replica_set: str | None = None  # the name that the URI requires

    def trouble(self) -> str | None:
        """Return why no server can be used, or None if there is a primary."""
        with self._lock:
            states = dict(self._states)
        if None in states.values():
            return None
        return "; ".join(f"{address}: {state}" for address, state in states.items()) or "no server is known"

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """Do nothing when a server is asked."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """Record the role of a server."""
        address, found = _address(event.connection_id), event.reply.replica_set_name
        with self._lock:
            self._states[address] = self._role(event.reply)
            if self.replica_set and found != self.replica_set:
                self._other_set.add(address)
                self._states[address] = (
                    f"the replica set is called {found}, not {self.replica_set}"
                    if found
                    else f"the server is not a member of the replica set {self.replica_set}"
                )

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """Record why a server cannot be asked."""
        if str(event.reply) != CLOSING:
            with self._lock:
                self._states[_address(event.connection_id)] = meaning(str(event.reply))

    def opened(self, event: ServerOpeningEvent) -> None:
        """Do nothing when a server becomes known."""

    def description_changed(self, event: ServerDescriptionChangedEvent) -> None:
        """Do nothing when a server changes."""

    def closed(self, event: ServerClosedEvent) -> None:
        """Forget a server that does not belong to the set, such as an alias of a member.

        The driver also closes a server of another set; that is what the log must say.
        """
        address = _address(event.server_address)
        with self._lock:
            if address not in self._other_set:
                self._states.pop(address, None)

    @staticmethod
    def _role(hello: Hello[Any]) -> str | None:
        if hello.is_writable:
            return None
        if hello.document.get("isreplicaset"):
            return "the replica set is not initiated: run mongosh --eval 'rs.initiate()'"
        return "the server is a secondary" if hello.document.get("secondary") else "the server is not ready"


def meaning(message: str) -> str:
    """Return what the driver's message about a connection means."""
    for pattern, text in MEANINGS:
        if found := re.search(pattern, message):
            why = next((part for part in found.groupdict().values() if part), None)
            return f"{text} ({cleaned(why)})" if why else text
    return cleaned(message)


def _seeds(uri: str) -> list[str]:
    if uri.startswith("mongodb+srv://"):  # the name service knows them
        return []
    try:
        return [_address(node) for node in parse_uri(uri, validate=False)["nodelist"]]
    except (PyMongoError, ValueError):
        return []  # the client raises the same


def _address(address: tuple[str, int | None]) -> str:
    host, port = address
    if port is None:
        return host  # a Unix domain socket
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
