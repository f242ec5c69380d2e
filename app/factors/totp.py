"""Time-based one-time passwords (TOTP, RFC 6238): SHA-1, six digits, 30 seconds. Does no I/O."""

import base64
import hmac
import secrets
import struct
from urllib.parse import quote, urlencode

DIGITS = 6
STEP_SECONDS = 30
SECRET_BYTES = 20  # RFC 4226 section 4, R6
CODE = f"[0-9]{{{DIGITS}}}"
# The current step and the one before, for transmission (RFC 6238 section 5.2); never the next one.
DELAYS = (0, 1)


def new_secret() -> bytes:
    """Return a random secret."""
    return secrets.token_bytes(SECRET_BYTES)


def code_at(secret: bytes, step: int) -> str:
    """Return the code of a step (HOTP, RFC 4226 section 5.3)."""
    mac = hmac.digest(secret, struct.pack(">Q", step), "sha1")
    offset = mac[-1] & 15
    number = struct.unpack(">I", mac[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def matching_step(secret: bytes, code: str, seconds: float) -> int | None:
    """Return the step whose code this is, or None.

    At a time in seconds since the epoch.
    """
    now = int(seconds) // STEP_SECONDS
    steps = [now - delay for delay in DELAYS]
    given = code.encode(errors="replace")
    matching = [step for step in steps if hmac.compare_digest(code_at(secret, step).encode(), given)]
    return matching[0] if matching else None


def as_text(secret: bytes) -> str:
    """Return the secret as it is typed.

    In Base32 (RFC 4648 section 6).
    """
    return base64.b32encode(secret).decode()


def uri(secret: bytes, *, product: str, username: str) -> str:
    """Return the URI that authenticator apps read from a QR code (the Key URI Format)."""
    label = f"{quote(product)}:{quote(username, safe='')}"
    parameters = {"secret": as_text(secret), "issuer": product, "algorithm": "SHA1", "digits": DIGITS}
    return f"otpauth://totp/{label}?{urlencode(parameters | {'period': STEP_SECONDS}, quote_via=quote)}"
