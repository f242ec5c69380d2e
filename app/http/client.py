"""The client of a request: its address, its network, its user agent, and the request's id."""

import ipaddress
import re
from dataclasses import dataclass
from random import getrandbits
from typing import Any

from sanic import Request
from sanic.log import logger

USER_AGENT_LENGTH = 200
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
PREFIXES = (64, 56, 48)  # bits; an IPv6 line has all addresses of a /64, often of a /56 or a /48
warned = False  # that all clients look like one


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from.

    Attempts are counted by `networks`, from the inner to the outer. If clients are `alike`, they share an address that
    says nothing about them.
    """

    address: str
    networks: tuple[str, ...]
    user_agent: str
    alike: bool = False

    @property
    def network(self) -> str:
        """The smallest network that has one owner.

        That is an IPv4 address, or a /64.
        """
        return self.networks[0]


def client(request: Request[Any, Any]) -> Client:
    """Return the client, determined once for each request."""
    known: Client | None = getattr(request.ctx, "client", None)
    if known is None:
        ip_address = address(request)
        known = request.ctx.client = Client(ip_address, networks(ip_address), user_agent(request), alike(request))
    return known


def request_id(request: Request[Any, Any]) -> str:
    """Return the request's id.

    The client's X-Request-ID if it is well-formed, else a new id; determined once for each request.
    """
    known = getattr(request.ctx, "request_id", None)
    if known is None:
        sent = request.headers.getone("x-request-id", "")
        # Ids are no secrets. The functions of the module random, other than a generator of our own, are seeded again in
        # a forked worker.
        known = request.ctx.request_id = sent if WELL_FORMED_ID.fullmatch(sent) else f"{getrandbits(128):032x}"
    return str(known)


def current_request() -> Request[Any, Any] | None:
    """Return the request that the running task serves, if any."""
    return Request._current.get(None)


def current_context() -> Any | None:
    """Return the namespace of the current request, if any."""
    request = current_request()
    return None if request is None else request.ctx


def address(request: Request[Any, Any]) -> str:
    """Return the client's IP address.

    It is the peer's, or the one that a configured proxy reports if that is valid.
    """
    for candidate in (request.remote_addr, request.ip):
        try:
            return str(ipaddress.ip_address(_without_port(candidate)))
        except ValueError:
            continue
    return "unknown"  # the peer of a Unix socket has none


def _without_port(node: str) -> str:
    """Return the address of a node that a proxy reports, which may have a port (RFC 7239 section 6)."""
    if node.startswith("["):
        return node[1:].partition("]")[0]
    return node.partition(":")[0] if node.count(":") == 1 else node


def networks(client_address: str) -> tuple[str, ...]:
    """Return the address itself, or its networks if it is IPv6, from the inner to the outer."""
    try:
        parsed = ipaddress.ip_address(client_address)
    except ValueError:
        return (client_address,)
    if isinstance(parsed, ipaddress.IPv4Address):
        return (str(parsed),)
    if parsed.ipv4_mapped:
        return (str(parsed.ipv4_mapped),)
    return tuple(str(ipaddress.ip_network((parsed, prefix), strict=False)) for prefix in PREFIXES)


def alike(request: Request[Any, Any]) -> bool:
    """Return whether all clients look like one, because a proxy that is not configured stands before the service.

    So it is if the peer's address is not a public one. The first such request is logged.
    """
    config = request.app.config
    if config.PROXIES_COUNT or config.REAL_IP_HEADER or config.FORWARDED_SECRET:
        return False
    try:
        if ipaddress.ip_address(request.ip).is_global:
            return False
    except ValueError:
        pass  # the peer of a Unix socket has no address
    _warn(request.ip)
    return True


def _warn(peer: str) -> None:
    global warned
    if not warned:
        logger.warning(
            "all clients seem to be %s, so password hashing is not shared between networks: if that is a proxy, "
            "configure PROXIES_COUNT, REAL_IP_HEADER or FORWARDED_SECRET",
            peer or "a Unix socket",
        )
        warned = True


def user_agent(request: Request[Any, Any]) -> str:
    """Return the User-Agent, shortened, as valid Unicode."""
    sent = request.headers.getone("user-agent", "")[:USER_AGENT_LENGTH]
    # Sanic keeps bytes that are not UTF-8 as lone surrogates, which MongoDB does not accept.
    return sent.encode("utf-8", "replace").decode()
