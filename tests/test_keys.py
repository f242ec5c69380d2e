"""Secrets: random ones are accepted in every usual form, and those that people type, copy or encode are not."""

import base64
import random
import string
from collections.abc import Callable

import pytest

from config.guessing import surplus_bits
from config.keys import (
    EXAMPLE_JWT_SECRET_KEY,
    HOW_TO_MAKE_ONE,
    MAX_SURPLUS_BITS,
    PUBLISHED,
    check_header_secret,
    check_key,
    weakness,
)
from config.product import NAME, SLUG

SAMPLES = 200  # of each form; a run of 10,000 of each refused none, and found at most 8 bits
GENERATOR = random.Random(14)  # noqa: S311 - the same keys in every run, so that the test does not depend on luck


def encoded(encode: Callable[[bytes], bytes], size: int) -> Callable[[], str]:
    """Return a function that makes keys of so many random bytes."""
    return lambda: encode(GENERATOR.randbytes(size)).decode()


def characters(alphabet: str, length: int) -> Callable[[], str]:
    """Return a function that makes keys of so many random characters."""
    return lambda: "".join(GENERATOR.choice(alphabet) for _ in range(length))


def unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")  # as secrets.token_urlsafe


FORMS: dict[str, Callable[[], str]] = {
    "token_urlsafe(32)": encoded(unpadded, 32),
    "token_urlsafe(48)": encoded(unpadded, 48),
    "token_hex(32)": encoded(base64.b16encode, 32),
    "token_hex(16)": lambda: GENERATOR.randbytes(16).hex(),
    "openssl rand -base64 32": encoded(base64.b64encode, 32),
    "openssl rand -base64 64": encoded(base64.b64encode, 64),
    "Base32": encoded(base64.b32encode, 32),
    "letters and digits": characters(string.ascii_letters + string.digits, 40),
    "printable characters": characters(string.ascii_letters + string.digits + string.punctuation, 40),
}


@pytest.mark.parametrize("form", FORMS)
def test_random_keys_are_accepted(form: str) -> None:
    keys = [FORMS[form]() for _ in range(SAMPLES)]
    assert [key for key in keys if weakness(key)] == []
    assert max(map(surplus_bits, keys[:20])) < MAX_SURPLUS_BITS / 2
    assert [check_key(key) for key in keys[:10]] == keys[:10]


GUESSED = f"""
12345678901234567890123456789012
98765432109876543210987654321098765432
31415926535897932384626433832795
19850412198704231990050519921212
00112233445566778899aabbccddeeff
0123456789abcdef0123456789abcdef
deadbeefcafebabe0badf00ddeadc0de
ffffffffffffffffffffffffffffffff00000000
abcdefghijklmnopqrstuvwxyz0123456789
zyxwvutsrqponmlkjihgfedcba98765432
aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpP
a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6
abcabcabcabcabcabcabcabcabcabcabc
xxxxxxxxxxxxxxxxyyyyyyyyyyyyyyyy
change-me-change-me-change-me-please
change_me_change_me_change_me_!!
replace-me-with-a-random-secret-of-at-least-32-bytes!
xreplace-me-with-a-random-secret-of-at-least-32-bytes
REPLACE-ME-WITH-A-RANDOM-SECRET-OF-AT-LEAST-32-BYTES
your-256-bit-secret-your-256-bit-secret
a-string-secret-at-least-256-bits-long
django-insecure-change-this-in-production-please
qwertyuiopasdfghjklzxcvbnm123456
1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,
qazwsxedcrfvtgbyhnujmikolpqazwsx
jkl;fdsajkl;fdsajkl;fdsajkl;fdsa
asdkfjhaslkdjfhaskjdfhlkajsdhfkjashdf
!@#$%^&*()_+!@#$%^&*()_+!@#$%^&*
supersecretsupersecretsupersecret
password1password2password3password4
P4ssw0rd!P4ssw0rd2!P4ssw0rd3!P4ssw0rd4!
My5up3r53cr3tK3yF0rPr0duct10n2024
MySuperSecretJWTKeyForProduction2024!
{SLUG}-secret-key-production-2026
{NAME}_{NAME}_sanic
thisisaverysecretkeythatnobodyknows
THISISAVERYSECRETKEYTHATNOBODYKNOWS
yekterceserucesyrevasisihtdnuora
correct-horse-battery-staple-purple-monkey
correct horse battery staple correct horse
TheGoodTheBadAndTheUgly1966ClintEastwood
LoremIpsumDolorSitAmetConsecteturAdipiscing
DonaudampfschifffahrtsgesellschaftskapitaenX1
MotDePasseTresSecretPourLApplication2025
unaclavesecretamuylargaparalaaplicacion
https://api.example.com/auth/jwt-secret-2024
jan.kowalski@example.com-2024-token-key
Schlüssel-für-die-Anwendung-2024-geheim
550e8400-e29b-41d4-a716-446655440000
""".strip().splitlines()


@pytest.mark.parametrize("key", GUESSED)
def test_a_key_that_can_be_guessed_is_rejected_with_a_way_to_make_one(key: str) -> None:
    with pytest.raises(ValueError, match="make one with") as refused:
        check_key(key)
    assert HOW_TO_MAKE_ONE in str(refused.value)
    assert key not in str(refused.value)


@pytest.mark.parametrize("published", PUBLISHED)
def test_published_examples_are_rejected_also_with_additions(published: str) -> None:
    for key in (published, f"{published}!", f"x{published}", published * 2):
        with pytest.raises(ValueError, match="example"):
            check_key(key)


@pytest.mark.parametrize(
    "typed",
    ["change-me-change-me-change-me-change", "this is a very secret key for just us", bytes(range(32)).decode()],
)
def test_an_encoding_does_not_make_a_guessable_key_random(typed: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b16encode):
        assert weakness(encode(typed.encode()).decode())
    assert weakness(typed.encode().hex())


@pytest.mark.parametrize(
    ("check", "key", "reason"),
    [
        (check_key, "kX9vQ2-hT7_wZ4", "shorter than 16 random bytes"),
        (check_key, "kX9vQ2-hT7_wZ4mPs8LcR1bYf", "shorter than 32 bytes"),
        (check_key, EXAMPLE_JWT_SECRET_KEY, "is the example"),
        (check_key, "kX9vQ2-hT7_wZ4mPs8LcR1bYf" * 50, "longer than 1024 characters"),
        (check_header_secret, "9f86d081884c7d659a2feaa0c55a", "shorter than 16 random bytes"),
        (check_header_secret, 'kX9vQ2-hT7_wZ4mPs8"cR1bYf', "header cannot carry"),
        (check_header_secret, "kX9vQ2-hT7_wZ4mPs8,cR1bYf", "header cannot carry"),
        (check_header_secret, "kX9vQ2-hT7_wZ4mPs8;cR1bYf", "header cannot carry"),
        (check_header_secret, "kX9vQ2+hT7/wZ4mPs8LcR1bYfw==", "header cannot carry"),
        (check_header_secret, "kX9vQ2-hT7 wZ4mPs8LcR1bYf", "header cannot carry"),
        (check_header_secret, "x", "not random"),
        (check_header_secret, "secret-of-the-proxy-2026", "not random"),
    ],
)
def test_the_reason_is_named(check: Callable[[str], str], key: str, reason: str) -> None:
    with pytest.raises(ValueError, match="make one with") as refused:
        check(key)
    assert reason in str(refused.value)


def test_a_header_secret_needs_sixteen_random_bytes() -> None:
    for make in (encoded(unpadded, 16), lambda: GENERATOR.randbytes(16).hex(), encoded(unpadded, 32)):
        for _ in range(20):
            check_header_secret(make())
