"""Pages of the feed of ended sessions: JWTs that other services verify with the public keys."""

import json
from typing import Any

import jwt

from app.tokens.key_set import KeySet, KeysNotRead

TYPE = "revocations+jwt"


class FeedTokens:
    """Signs pages with the key that signs at the moment, whichever algorithm access tokens have."""

    def __init__(self, key_set: KeySet, *, issuer: str) -> None:
        self._key_set = key_set
        self._issuer = issuer
        self._signatures = jwt.PyJWS()

    @property
    def ready(self) -> bool:
        """Whether there is a key."""
        return self._key_set.feed is not None

    @property
    def kid(self) -> str:
        """The name of the key that signs, if there is one."""
        return self._key_set.feed.public.kid if self._key_set.feed else ""

    def encode(self, claims: dict[str, Any], *, sessions: str) -> str:
        """Return a signed page.

        `sessions` is JSON already, because many pages share it. Raises KeysNotRead.
        """
        key = self._key_set.feed
        if key is None:
            raise KeysNotRead
        payload = json.dumps({"iss": self._issuer, **claims}, separators=(",", ":"))
        headers = {"typ": TYPE, "kid": key.public.kid}
        with_sessions = f'{payload[:-1]},"sessions":{sessions}}}'.encode()
        return self._signatures.encode(with_sessions, key.private, key.public.algorithm, headers)
