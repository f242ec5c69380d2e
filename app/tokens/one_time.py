"""One-time tokens and codes that reach users by mail: their forms, and what is stored of them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from enum import StrEnum

CODE_DIGITS = 8
CODE = "[0-9]{8}"
TOKEN = "[A-Za-z0-9_-]{43}"  # noqa: S105 - the form of 256 bits in Base64url


class Purpose(StrEnum):
    """What a token or code is for.

    It is worth nothing for anything else.
    """

    VERIFICATION = "verification"
    RESET = "reset"
    UNDO = "undo"
    CHALLENGE = "challenge"
    PASSKEY_REGISTRATION = "passkey registration"
    PASSKEY_LOGIN = "passkey login"
    PASSKEY_STEP_UP = "passkey step-up"


def new_token() -> str:
    """Return a token of 256 random bits."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what is stored of a token.

    It has so many random bits that a fast hash is enough.
    """
    return hashlib.sha256(token.encode()).hexdigest()


class Codes:
    """Makes codes, and what is stored of them.

    That is an HMAC, since a hash of eight digits could be guessed.

    Codes of the previous keys are still accepted.
    """

    def __init__(self, keys: Sequence[bytes], *, product: str) -> None:
        purpose = f"{product} one-time code 1".encode()  # separates the derived keys from those of other uses
        self._keys = [hmac.digest(key, purpose, hashlib.sha256) for key in keys]

    def new(self, *about: str) -> tuple[str, str]:
        """Return a code and its MAC.

        It counts only together with what it is about.
        """
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
        return code, _mac(self._keys[0], code, about)

    def matches(self, mac: str, code: str, *about: str) -> bool:
        """Return whether a MAC is that of this code."""
        return any(hmac.compare_digest(mac, _mac(key, code, about)) for key in self._keys)


def _mac(key: bytes, code: str, about: tuple[str, ...]) -> str:
    message = "\0".join((*about, code))  # which contains no NUL: ids, purposes and addresses have none
    return hmac.digest(key, message.encode(), hashlib.sha256).hex()
