"""Secrets must be random: an attacker who guesses a signing key can forge every token."""

import re

from config.guessing import surplus_bits

EXAMPLE_JWT_SECRET_KEY = "replace-me-with-a-random-secret-of-at-least-32-bytes"
# Examples that are copied: ours, that of RFC 7515 appendix A.1, and those of the documentation of two frameworks.
PUBLISHED = (
    EXAMPLE_JWT_SECRET_KEY,
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
)
HOW_TO_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
MIN_KEY_BYTES = 32  # RFC 7518 section 3.2: an HS256 key has at least 256 bits
MIN_RANDOM_BYTES = 16  # 128 bits; in hexadecimal a byte takes two characters, in Base64 four for three bytes
MAX_LENGTH = 1024  # characters; a longer key adds nothing
MIN_VARIETY = 8  # different characters; 16 random bytes have fewer in one of 28 million cases, even in hexadecimal
# A text whose description is this much shorter than one of random characters was typed. A random text reaches 20 bits
# in less than one of a million cases by theory (config/guessing.py), and reached 8 in a hundred thousand.
MAX_SURPLUS_BITS = 20
EXAMINED = 128  # characters, a multiple of those that encode a byte; a typed text is typed from its beginning
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
VISIBLE = re.compile(r"[!-~]*")
UUID = re.compile(r"\{?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?", re.IGNORECASE)
HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")


def check_key(secret: str) -> str:
    """Return a random key of at least 32 bytes.

    Raises ValueError with the reason.
    """
    short = f"is shorter than {MIN_KEY_BYTES} bytes" if len(secret.encode()) < MIN_KEY_BYTES else None
    return _checked(secret, weakness(secret) or short)


def check_header_secret(secret: str) -> str:
    """Return a random secret that survives as a value in a header.

    Raises ValueError with the reason.
    """
    strange = (
        None if TOKEN.fullmatch(secret) else "has characters that a header cannot carry without quoting (RFC 9110)"
    )
    return _checked(secret, strange or weakness(secret))


def _checked(secret: str, reason: str | None) -> str:
    if reason:
        raise ValueError(f"{reason}: make one with {HOW_TO_MAKE_ONE}")
    return secret


def weakness(secret: str) -> str | None:
    """Return why a secret can be guessed, or None if it looks random."""
    if any(published in secret for published in PUBLISHED):
        return "is the example" if secret == EXAMPLE_JWT_SECRET_KEY else "contains a published example"
    if not VISIBLE.fullmatch(secret):
        return "has spaces, or characters that are not ASCII, so it is not random"
    if len(secret) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if len(set(secret)) < MIN_VARIETY:
        return f"has fewer than {MIN_VARIETY} different characters, so it is not random"
    if UUID.fullmatch(secret):
        return "is a UUID, which is not meant to be hard to guess (RFC 9562 section 8)"
    if len(secret) * (4 if HEXADECIMAL.fullmatch(secret) else 6) // 8 < MIN_RANDOM_BYTES:
        return f"is shorter than {MIN_RANDOM_BYTES} random bytes in hexadecimal or Base64"
    if secret.isdigit() or (secret.isalpha() and secret in (secret.lower(), secret.upper())):
        return "has only digits, or only letters of one case, so it is not random"
    if surplus_bits(secret[:EXAMINED]) > MAX_SURPLUS_BITS:
        return "looks like words, repetitions or sequences, so it is not random"
    return None
