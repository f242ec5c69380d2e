"""Access tokens: JWTs (RFC 9068), signed with HS256, or with an asymmetric key that other services can verify."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, TypeVar

import jwt
from jwt.algorithms import HMACAlgorithm
from pydantic import BaseModel, ConfigDict

from app.http.bodies import without_duplicates
from app.schemas.auth import SessionId
from app.schemas.users import UserId
from app.tokens.key_set import ALGORITHMS, KeySet, KeysNotRead

ALGORITHM = "HS256"
TYPE = "at+jwt"
NEVER = 0  # seconds since the epoch: the time of the last authentication of a token that does not state it
# How far another machine's clock may be ahead before its tokens are rejected as issued in the future.
CLOCK_SKEW_SECONDS = 10
CLAIMS = json.JSONDecoder(object_pairs_hook=without_duplicates)

Shared = TypeVar("Shared", bound=Hashable)  # Python 3.11 has no type parameters


class InvalidAccessToken(Exception):
    """The token was not issued by this service, whatever the reason."""


class UnknownKey(InvalidAccessToken):
    """The token states a key that this worker does not know.

    It may have been made a moment ago.
    """


class Payload(BaseModel):
    """The form of a token's content.

    `sub` and `sid` have the form of ids, so that no other text reaches the database.

    `auth_time` and `amr` (RFC 8176) are optional: without them the user authenticated by password, never freshly.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    sub: UserId
    sid: SessionId
    jti: str
    iat: int
    exp: int
    iss: str
    aud: str
    scopes: list[str]
    auth_time: int = NEVER
    amr: list[str] = ["pwd"]


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token whose signature is valid, and the key that signed it.

    Expiry and revocation are checked elsewhere. A worker remembers thousands of them: they are smaller than a
    Payload, and what many have in common is stored once.
    """

    sub: str
    sid: str
    jti: str
    iat: int
    exp: int
    iss: str
    aud: str
    scopes: tuple[str, ...]
    auth_time: int
    amr: tuple[str, ...]
    kid: str
    stated: frozenset[str]  # the names of the claims in the token

    @classmethod
    def of(cls, payload: Payload, kid: str) -> Self:
        """Return the claims of a payload."""
        return cls(
            sub=payload.sub,
            sid=payload.sid,
            jti=payload.jti,
            iat=payload.iat,
            exp=payload.exp,
            iss=stored_once(payload.iss),
            aud=stored_once(payload.aud),
            scopes=stored_once(tuple(payload.scopes)),
            auth_time=payload.auth_time,
            amr=stored_once(tuple(payload.amr)),
            kid=kid,
            stated=stored_once(frozenset(payload.model_fields_set)),
        )

    def payload(self) -> dict[str, Any]:
        """Return what the token states."""
        values = {name: getattr(self, name) for name in Payload.model_fields if name in self.stated}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@lru_cache(64)
def stored_once(value: Shared) -> Shared:
    """Return the same object for equal values."""
    return value


def key_id(key: bytes) -> str:
    """Return a name for a key that does not reveal it."""
    return hmac.digest(key, b"kid", hashlib.sha256).hex()[:8]


class PreparedHS256(HMACAlgorithm):
    """HS256 with keys that are checked once.

    PyJWT would check for each token whether its key is a public key (algorithm confusion).
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared = {key: super(PreparedHS256, self).prepare_key(key) for key in keys}

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return a key that was checked.

        Raises KeyError for any other.
        """
        return self._prepared[key]  # type: ignore[index]


class AccessTokens:
    """Encodes with the first key and issuer, decodes with all of them.

    `key_set` has the asymmetric keys, if any. If one of them signs, HS256 still verifies: a switch ends no session. The
    algorithm of a token is that of its key, whatever its header states (algorithm confusion, RFC 8725 section 3.1).
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        *,
        issuers: Sequence[str],
        audience: str,
        lifetime_seconds: int,
        key_set: KeySet | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key_set = key_set
        self._asymmetric = {algorithm: jwt.PyJWS([algorithm]) for algorithm in ALGORITHMS} if key_set else {}
        self._keys = [(key_id(key), key) for key in keys]
        self._issuers = tuple(issuers)
        self._audience = audience
        self._signatures = jwt.PyJWS([ALGORITHM])
        self._signatures.unregister_algorithm(ALGORITHM)
        self._signatures.register_algorithm(ALGORITHM, PreparedHS256(keys))
        self._lifetime = lifetime_seconds
        self._clock = clock

    def encode(
        self,
        *,
        user_id: str,
        session_id: str,
        scopes: list[str],
        session_expires: float,
        auth_time: float | None = None,
        amr: Sequence[str] = (),
    ) -> tuple[str, int]:
        """Return a token and its lifetime in seconds.

        No token outlives its session. Without `auth_time` and `amr` (RFC 8176) it does not
        state when and how the user authenticated.
        """
        now = int(self._clock())
        seconds = max(0, min(self._lifetime, int(session_expires) - now))
        claims = {
            "iss": self._issuers[0],
            "aud": self._audience,
            "sub": user_id,
            "sid": session_id,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + seconds,
            "scopes": scopes,
        }
        if auth_time is not None:
            claims |= {"auth_time": int(auth_time), "amr": list(amr)}
        return self._sign(claims), seconds

    def _sign(self, claims: dict[str, Any]) -> str:
        if self._key_set and not self._key_set.hmac_signs:
            signing = self._key_set.signing
            if signing is None:
                raise KeysNotRead
            headers = {"typ": TYPE, "kid": signing.public.kid}
            return jwt.encode(claims, signing.private, signing.public.algorithm, headers=headers)
        kid, key = self._keys[0]
        return jwt.encode(claims, key, ALGORITHM, headers={"typ": TYPE, "kid": kid})

    def decode(self, token: str) -> Claims:
        """Check the signature and the form of all signed content.

        RFC 8725: one algorithm (3.1), every claim required and of its type (3.10), the type explicit (3.11). Raises
        InvalidAccessToken, or UnknownKey if the key may be a new one.
        """
        if "=" in token:  # padding, which RFC 7515 section 2 excludes and PyJWT accepts
            raise InvalidAccessToken
        try:
            kid, decoded = self._decode(token)
            payload = Payload.model_validate(CLAIMS.decode(decoded["payload"].decode()))
        except (jwt.PyJWTError, ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
            raise InvalidAccessToken from error
        header = decoded["header"]
        if header.get("typ") != TYPE or header.get("kid") != kid:
            raise InvalidAccessToken
        if payload.iss not in self._issuers or payload.aud != self._audience:
            raise InvalidAccessToken
        # A longer lifetime comes from another issuer with this key, or from a setting that was lowered since.
        if payload.iat > self._clock() + CLOCK_SKEW_SECONDS or not 0 <= payload.exp - payload.iat <= self._lifetime:
            raise InvalidAccessToken
        return Claims.of(payload, kid)

    def _decode(self, token: str) -> tuple[str, dict[str, Any]]:
        if self._key_set:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid", "")
            if public := self._key_set.public.get(kid):
                signatures = self._asymmetric[public.algorithm]
                return kid, signatures.decode_complete(token, public.key, [public.algorithm])
            if header.get("alg") in ALGORITHMS:
                raise UnknownKey
        for kid, key in self._keys[:-1]:
            try:
                return kid, self._signatures.decode_complete(token, key, [ALGORITHM])
            except jwt.InvalidSignatureError:
                continue  # signed before the key was rotated
        kid, key = self._keys[-1]
        return kid, self._signatures.decode_complete(token, key, [ALGORITHM])
