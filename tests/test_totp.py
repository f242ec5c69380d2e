"""The forms of time-based codes and of recovery codes, without a service."""

import base64
import re
import secrets
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest

from app.factors import recovery_codes, totp

RFC_SECRET = b"12345678901234567890"  # RFC 6238 appendix B
# The last six of the eight digits of each vector with SHA-1.
VECTORS = {
    59: "287082",
    1111111109: "081804",
    1111111111: "050471",
    1234567890: "005924",
    2000000000: "279037",
    20000000000: "353130",
}


@pytest.mark.parametrize(("seconds", "code"), VECTORS.items())
def test_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    assert totp.code_at(RFC_SECRET, seconds // totp.STEP_SECONDS) == code
    assert totp.matching_step(RFC_SECRET, code, seconds) == seconds // totp.STEP_SECONDS


def test_another_implementation_makes_the_same_codes() -> None:
    for seconds in range(0, 3_000_000_000, 29_999_999):
        secret = totp.new_secret()
        assert pyotp.TOTP(totp.as_text(secret)).at(seconds) == totp.code_at(secret, seconds // totp.STEP_SECONDS)


@pytest.mark.parametrize(("step", "matches"), [(7, False), (8, True), (9, True), (10, False), (11, False)])
def test_the_current_and_the_previous_step_match_never_the_next(step: int, *, matches: bool) -> None:
    code = totp.code_at(RFC_SECRET, step)
    for seconds in (9 * totp.STEP_SECONDS, 10 * totp.STEP_SECONDS - 0.001):
        assert totp.matching_step(RFC_SECRET, code, seconds) == (step if matches else None)


@pytest.mark.parametrize("code", ["", "28708", "2870822", "٢٨٧٠٨٢", "28708x", "28708\ud800"])
def test_what_is_no_code_matches_nothing(code: str) -> None:
    assert totp.matching_step(RFC_SECRET, code, 59) is None


def test_the_uri_is_read_by_authenticators() -> None:
    secret = secrets.token_bytes(20)
    uri = totp.uri(secret, product="A Product", username="alice/bob?&")
    parsed = pyotp.parse_uri(uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert base64.b32decode(parsed.secret) == secret
    assert (parsed.issuer, parsed.digits, parsed.interval) == ("A Product", 6, 30)
    assert unquote(urlsplit(uri).path) == "/A Product:alice/bob?&"
    assert parse_qs(urlsplit(uri).query)["algorithm"] == ["SHA1"]


def test_recovery_codes_have_80_bits_and_different_first_letters() -> None:
    codes = recovery_codes.new_codes()
    assert len({recovery_codes.prefix(code) for code in codes}) == recovery_codes.NUMBER == 10
    for code in codes:
        assert re.fullmatch("[a-z2-7]{4}(-[a-z2-7]{4}){3}", code)
        assert len(base64.b32decode(recovery_codes.normalise(code).upper())) * 8 == 80


@pytest.mark.parametrize("spelling", [str.upper, lambda code: code.replace("-", ""), lambda code: f" {code} "])
def test_the_spelling_of_a_recovery_code_does_not_matter(spelling: object) -> None:
    code = recovery_codes.new_code()
    assert callable(spelling)
    assert recovery_codes.normalise(spelling(code)) == recovery_codes.normalise(code)
