"""Recovery codes: shown once, each of use once, when an authenticator is lost. Does no I/O.

A code has 80 random bits, which a password hash protects (OWASP ASVS 6.5.2). Its first letters are stored beside the
hash, so that only one hash is verified for a code.
"""

import base64
import secrets

NUMBER = 10
BYTES = 10
GROUP = 4  # letters
PREFIX = 4  # letters, which leave 60 random bits
CODE = "[A-Za-z2-7]{4}(?:[- ]?[A-Za-z2-7]{4}){3}"


def new_code() -> str:
    """Return a code in groups of letters and digits (Base32, RFC 4648 section 6)."""
    text = base64.b32encode(secrets.token_bytes(BYTES)).decode().lower()
    return "-".join(text[start : start + GROUP] for start in range(0, len(text), GROUP))


def new_codes() -> list[str]:
    """Return codes that differ in their first letters."""
    codes: dict[str, str] = {}
    while len(codes) < NUMBER:
        code = new_code()
        codes.setdefault(prefix(code), code)
    return list(codes.values())


def normalise(code: str) -> str:
    """Return the form of a code that is hashed, whatever its spelling."""
    return "".join(character for character in code.lower() if character not in "- ")


def prefix(code: str) -> str:
    """Return the first letters of a code, by which its hash is found."""
    return normalise(code)[:PREFIX]
