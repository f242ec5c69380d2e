"""Refresh tokens: a session's id, its counter, and an HMAC over both.

A token is computed, not stored: nothing in the database can be replayed, and parallel refreshes compute the same
successor.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence

from app.schemas.auth import SESSION_ID

FORM = re.compile(rf"({SESSION_ID})\.(0|[1-9][0-9]{{0,9}})\.([A-Za-z0-9_-]{{43}})", re.ASCII)


class InvalidRefreshToken(Exception):
    """The token was not issued by this service."""


class RefreshTokens:
    """Encodes with the first key, decodes with all of them."""

    def __init__(self, keys: Sequence[bytes], *, product: str) -> None:
        purpose = f"{product} refresh token 1".encode()  # separates the derived keys from those of other uses
        self._keys = [hmac.digest(key, purpose, hashlib.sha256) for key in keys]

    def encode(self, session_id: str, counter: int) -> str:
        """Return the current token of a session after `counter` rotations."""
        return f"{session_id}.{counter}.{self._mac(self._keys[0], session_id, counter)}"

    def decode(self, token: str) -> tuple[str, int]:
        """Return the session's id and the counter. Raises InvalidRefreshToken."""
        form = FORM.fullmatch(token)
        if not form:
            raise InvalidRefreshToken
        session_id, counter, mac = form[1], int(form[2]), form[3]
        matches = [hmac.compare_digest(mac, self._mac(key, session_id, counter)) for key in self._keys]
        if not any(matches):
            raise InvalidRefreshToken
        return session_id, counter

    @staticmethod
    def _mac(key: bytes, session_id: str, counter: int) -> str:
        mac = hmac.digest(key, f"{session_id}.{counter}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
