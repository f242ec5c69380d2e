"""Who is asking: the request's id, its address, its user agent."""

import ipaddress
import re
from random import Random
from typing import Any

from sanic import Request

USER_AGENT_LENGTH = 200
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
ids = Random()  # noqa: S311 - they are no secrets, and a generator for those takes ten times as long
SHARED_PREFIX = 64  # bits; whoever has one IPv6 address of such a network has all of them


def request_id(request: Request[Any, Any]) -> str:
    """Return the client's X-Request-ID if it is well-formed, else one made here; the same for one request."""
    known = getattr(request.ctx, "request_id", None)
    if known is None:
        sent = request.headers.getone("x-request-id", "")
        known = request.ctx.request_id = sent if WELL_FORMED_ID.fullmatch(sent) else f"{ids.getrandbits(128):032x}"
    return str(known)


def address(request: Request[Any, Any]) -> str:
    """Return the client's IP address: the peer's, or what a configured proxy says of it if that is an address."""
    for candidate in (request.remote_addr, request.ip):
        try:
            return str(ipaddress.ip_address(_without_port(candidate)))
        except ValueError:
            continue
    return "unknown"  # a Unix socket's peer has none


def _without_port(node: str) -> str:
    """Return the address of what a proxy calls its client, which may be followed by a port (RFC 7239 section 6)."""
    if node.startswith("["):
        return node[1:].partition("]")[0]
    return node.partition(":")[0] if node.count(":") == 1 else node


def network(client_address: str) -> str:
    """Return what attempts are counted by: the address, or the network that an IPv6 client has to itself."""
    try:
        parsed = ipaddress.ip_address(client_address)
    except ValueError:
        return client_address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, SHARED_PREFIX), strict=False))


def user_agent(request: Request[Any, Any]) -> str:
    """Return what the client calls itself, as it may be stored."""
    sent = request.headers.getone("user-agent", "")[:USER_AGENT_LENGTH]
    # Sanic keeps bytes that are no UTF-8 as lone surrogates, which no database takes.
    return sent.encode("utf-8", "replace").decode()
