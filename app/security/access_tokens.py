"""Access tokens: JWTs after RFC 9068, signed with HS256."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jwt
from jwt.algorithms import HMACAlgorithm
from pydantic import BaseModel, ConfigDict

from app.http.bodies import without_duplicates

ALGORITHM = "HS256"
TYPE = "at+jwt"
ISSUER = AUDIENCE = "sanic-api-demo"
# How far another machine's clock may be ahead of ours before its tokens look as if from the future.
CLOCK_SKEW_SECONDS = 10
CLAIMS = json.JSONDecoder(object_pairs_hook=without_duplicates)


class InvalidAccessToken(Exception):
    """The token is not one of ours, whatever the reason."""


class Claims(BaseModel):
    """What a verified token says. Expiry and revocation are not part of the verification."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    sub: str
    sid: str
    jti: str
    iat: int
    exp: int
    iss: Literal["sanic-api-demo"]
    aud: Literal["sanic-api-demo"]
    scopes: list[str]


def key_id(key: bytes) -> str:
    """Name a key without telling it."""
    return hmac.digest(key, b"kid", hashlib.sha256).hex()[:8]


class Prepared(HMACAlgorithm):
    """HS256 with keys that are looked at once; PyJWT asks of each token's anew whether it is a disguised public key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared = {key: super(Prepared, self).prepare_key(key) for key in keys}

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return what the key was found to be. Raises KeyError for any other."""
        return self._prepared[key]  # type: ignore[index]


class AccessTokens:
    """Sign with the first key, verify with all of them."""

    def __init__(self, keys: Sequence[bytes], *, lifetime_seconds: int, clock: Callable[[], float] = time.time) -> None:
        self._keys = [(key_id(key), key) for key in keys]
        self._signatures = jwt.PyJWS([ALGORITHM])
        self._signatures.unregister_algorithm(ALGORITHM)
        self._signatures.register_algorithm(ALGORITHM, Prepared(keys))
        self._lifetime = lifetime_seconds
        self._clock = clock

    def sign(self, *, user_id: str, session_id: str, scopes: list[str], session_expires: float) -> tuple[str, int]:
        """Return a token and the seconds it lives; none outlives its session."""
        now = int(self._clock())
        seconds = max(0, min(self._lifetime, int(session_expires) - now))
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "sid": session_id,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + seconds,
            "scopes": scopes,
        }
        kid, key = self._keys[0]
        return jwt.encode(claims, key, ALGORITHM, headers={"typ": TYPE, "kid": kid}), seconds

    def verify(self, token: str) -> Claims:
        """Check the signature and the form of everything signed. Raises InvalidAccessToken.

        RFC 8725: one algorithm (3.1), every claim required and of its type (3.10), the type explicit (3.11).
        """
        if "=" in token:  # padding, which RFC 7515 section 2 leaves out and PyJWT takes
            raise InvalidAccessToken
        try:
            kid, decoded = self._decode(token)
            claims = Claims.model_validate(CLAIMS.decode(decoded["payload"].decode()))
        except (jwt.PyJWTError, ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
            raise InvalidAccessToken from error
        header = decoded["header"]
        if header.get("typ") != TYPE or header.get("kid") != kid:
            raise InvalidAccessToken
        # Longer than we issue: a foreign issuer with our key, or a setting that has been lowered since.
        if claims.iat > self._clock() + CLOCK_SKEW_SECONDS or not 0 <= claims.exp - claims.iat <= self._lifetime:
            raise InvalidAccessToken
        return claims

    def expired(self, claims: Claims) -> bool:
        """Tell whether the token's time is over, to the second and without leeway."""
        return claims.exp <= self._clock()

    def _decode(self, token: str) -> tuple[str, dict[str, Any]]:
        for kid, key in self._keys[:-1]:
            try:
                return kid, self._signatures.decode_complete(token, key, [ALGORITHM])
            except jwt.InvalidSignatureError:
                continue  # signed before the key was rotated
        kid, key = self._keys[-1]
        return kid, self._signatures.decode_complete(token, key, [ALGORITHM])
