"""The connection string of MongoDB: what can be checked of it without the network."""

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri, split_options

from config import texts

PLAIN, SRV = "mongodb://", "mongodb+srv://"
# The names of options are case-insensitive, and the driver returns them in lower case.
CERTIFICATES, KEY_FILE = ("tlsCAFile", "tlsCRLFile"), "tlsCertificateKeyFile"
KEY_PASSWORD = "tlsCertificateKeyFilePassword"  # noqa: S105 - the name of an option
# Each of them, if true, makes the driver accept a server without verifying it (CWE-295).
INSECURE = ("tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames")


def check_uri(uri: str) -> str:
    """Return a connection string that the driver can use.

    Raises ValueError; its message contains nothing of the URI but names of options.
    """
    options = _options(uri)
    for name in (*CERTIFICATES, KEY_FILE):
        path = options.get(name.lower())
        if path is not None and (reason := _file_fault(name, path, options)):
            raise ValueError(f"{name} {reason}")
    for text in _parts(uri):
        if reason := texts.fault(text):
            raise ValueError(f"{reason} of a name or an option, after percent-decoding")
    return uri


def check_verified(uri: str) -> str:
    """Return a connection string with which the driver verifies the server.

    Raises ValueError.
    """
    options = _options(uri)
    for name in INSECURE:
        if options.get(name.lower(), "false") != "false":
            raise ValueError(f"must not have {name} in production: the driver would not verify the server (CWE-295)")
    return uri


def _options(uri: str) -> dict[str, str]:
    """Return the options as they are written, by their names in lower case."""
    query = uri.partition("?")[2]
    if not query:
        return {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of options that the driver ignores; it warns when it connects
            options = split_options(query, validate=False, normalize=False)
    except PyMongoError:
        raise _unreadable() from None
    return {name.lower(): str(value) for name, value in options.items()}


def _parts(uri: str) -> Iterator[str]:
    """Yield the names, the password and the texts among the options, percent-decoded."""
    try:
        with warnings.catch_warnings(action="ignore"):
            parsed: dict[str, Any] = parse_uri(_without_look_up(uri))
    except (PyMongoError, ValueError, OSError):
        raise _unreadable() from None
    values = [parsed[name] for name in ("database", "collection", "username", "password")]
    yield from (value for value in [*values, *parsed["options"].values()] if isinstance(value, str))


def _without_look_up(uri: str) -> str:
    """Return the URI without what needs the network: the hosts of an SRV record."""
    if not uri.startswith(SRV):
        return uri
    path, mark, query = uri.removeprefix(SRV).partition("?")
    return PLAIN + path + mark + "&".join(one for one in query.split("&") if not one.lower().startswith("srv"))


def _file_fault(name: str, path: str, options: dict[str, str]) -> str | None:
    """Return why the file of an option cannot be used, or None."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with Path(path).open("rb"):  # the errors of OpenSSL do not tell why a file cannot be read
            if name == KEY_FILE:  # without a password OpenSSL would ask for it at the terminal
                context.load_cert_chain(path, password=options.get(KEY_PASSWORD.lower(), ""))
            else:
                context.load_verify_locations(path)
    except ssl.SSLError:
        return "names a file that does not contain what it should in PEM format"
    except (OSError, ValueError) as error:
        return f"names a file that cannot be read ({getattr(error, 'strerror', None) or 'not a path'})"
    return None


def _unreadable() -> ValueError:
    return ValueError("is not a MongoDB connection string; in a password, special characters are percent-encoded")
