"""The asymmetric keys of a worker. Empty, and without any import, unless they are switched on."""

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.tokens.keys import PublicKey, SigningKey

ALGORITHMS = ("EdDSA", "ES256")


def encryption_key_name(key: bytes) -> str:
    """Return a name for an encryption key that does not reveal it.

    Stored secrets state it.
    """
    return hmac.digest(key, b"encryption key", hashlib.sha256).hex()[:8]


class KeysNotRead(Exception):
    """The keys could not be read yet."""


class KeySet:
    """The keys of this worker, which `security/keys.py` follows.

    `signing` signs access tokens, unless HS256 does, `feed` signs the feed, and all in `public` verify.
    """

    def __init__(self, *, hmac_signs: bool) -> None:
        self.hmac_signs = hmac_signs
        self.read = False  # once
        self.signing: SigningKey | None = None
        self.feed: SigningKey | None = None
        self.public: dict[str, PublicKey] = {}

    @property
    def jwks(self) -> list[dict[str, str]]:
        """The public keys as JWKs (RFC 7517)."""
        return [key.jwk for key in self.public.values()]
