"""Addresses of and around the service: its public URL, the mail server, the sender of mails."""

import ipaddress
import re
from dataclasses import dataclass
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

# A name or an address, as in the grammar of the Host header (app/server/framing.py), and a port.
HOST = re.compile(r"(?:[0-9a-z._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
PATH = re.compile(r"(?:/[0-9A-Za-z._~-]+)*", re.ASCII)
PORTS = {"smtp": 587, "smtps": 465}  # RFC 8314 sections 3.3 and 7.3
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
DEVELOPMENT_URL = "http://localhost:8000"


@dataclass(frozen=True)
class SmtpServer:
    """Where mails are handed over, and how the connection is protected."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: Literal["implicit", "starttls", "none"]


def smtp_server(url: str) -> SmtpServer:
    """Read `smtp://user:password@host:587` (STARTTLS) or `smtps://user:password@host:465` (TLS from the start).

    Without TLS only for a server on the same machine. Raises ValueError; its message contains nothing of the URL.
    """
    parts = _split(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("is not a URL such as smtp://user:password@mail.example.com:587")
    if (parts.username is None) != (parts.password is None):
        raise ValueError("must have a user name and a password, or neither")
    plain = parts.scheme == "smtp" and _is_loopback(parts.hostname)
    return SmtpServer(
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls="implicit" if parts.scheme == "smtps" else "none" if plain else "starttls",
    )


def check_smtp_url(url: str) -> str:
    """Return a URL of a mail server. Raises ValueError."""
    smtp_server(url)
    return url


def check_protected_smtp_url(url: str) -> str:
    """Return a URL of a mail server that is reached by TLS.

    Raises ValueError.
    """
    if smtp_server(url).tls == "none":
        raise ValueError("must be a server with TLS in production: mails contain what resets passwords")
    return url


def check_public_url(url: str) -> str:
    """Return an origin with an optional path, without a default port and a slash at the end (RFC 6454).

    Raises ValueError.
    """
    scheme, _, rest = url.removesuffix("/").partition("://")
    host, slash, path = rest.partition("/")
    if scheme not in ("http", "https") or not HOST.fullmatch(host) or not PATH.fullmatch(slash + path):
        raise ValueError("is not a URL such as https://api.example.com or https://example.com/api")
    return f"{scheme}://{host.removesuffix(DEFAULT_PORTS[scheme])}{slash}{path}"


def origin(url: str) -> str:
    """Return the origin of a public URL (RFC 6454)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def has_domain(url: str) -> bool:
    """Return whether the host of a public URL is a name, for which browsers make passkeys."""
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return True
    return False


def check_secure_url(url: str) -> str:
    """Return a public URL that no network can impersonate.

    Raises ValueError.
    """
    if not url.startswith("https://"):
        raise ValueError("must begin with https:// in production: links in mails contain what resets passwords")
    return url


def check_sender(sender: str) -> str:
    """Return an address with an optional name: `Acme <no-reply@acme.example>`. Raises ValueError."""
    name, address = parseaddr(sender)
    try:
        made = Address(name, addr_spec=address)
    except (ValueError, IndexError):
        made = None
    if made is None or not made.username or not made.domain or not sender.isprintable() or not sender.isascii():
        raise ValueError("is not a sender such as Acme <no-reply@acme.example>")
    return sender


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is checked when it is read
    except ValueError:
        raise ValueError("is not a URL such as smtp://user:password@mail.example.com:587") from None
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
