"""Passwords that are easy to guess are rejected, whatever their length."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.security.password_strength import weakness

CONTEXT = ("alice.smith", "acme_api")

WEAK = """
123456789012345 147258369147258 111111111111111 aaaaaaaaaaaaaaa abcabcabcabcabc abcdefghijklmnop zyxwvutsrqponmlk
password12345678 Password1234567 passwordpassword drowssapdrowssap p4ssw0rdp4ssw0rd Pa$$w0rdPa$$w0rd P@ssword12345678
qwerty123456789 qwertyuiopasdfgh asdfghjklzxcvbnm 1qaz2wsx3edc4rfv iloveyouiloveyou letmeinletmein12 monkeymonkey123
football1baseball administrator1234 trustno1trustno1
alice.smith1 alice.smithalice.smith AliceSmith2026! htims.ecila1 alice.smith_password smith-alice-smith
acme_api_password acmeapi2026acmeapi Acme-Api!!!! acme_api_alice.smith
"""
STRONG = [
    "correct horse battery staple",
    "plumlanternhorse",
    "a quite different sentence",
    "alice has a green bicycle",
    "our acme lawn mower",
    "xkqzvjwp",
    "8264971530862",
    "пароль от старого сарая",
    "🦊🐻🐼🐨🐯🦁🐮🐷",
    "Tr0ub4dor&3",
]


@pytest.mark.parametrize("password", WEAK.split())
def test_passwords_that_are_easy_to_guess_are_rejected_with_a_reason(password: str) -> None:
    reason = weakness(password, CONTEXT)
    assert reason
    assert reason.endswith(".")


@pytest.mark.parametrize("password", STRONG)
def test_other_passwords_are_accepted(password: str) -> None:
    assert weakness(password, CONTEXT) is None


def test_an_estimate_takes_little_time_for_any_input() -> None:
    """Of 100 characters with many substitutions, zxcvbn alone takes seconds (algorithmic complexity attack)."""
    began = time.process_time()
    for password in ("4@8({[<369$!1|70+5%2" * 12, "a" * 256, "4@8({[" * 40, "password" * 32):
        weakness(password, CONTEXT)
    assert time.process_time() - began < 1, "CPU seconds"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_text_has_an_estimate(password: str) -> None:
    reason = weakness(password, CONTEXT)
    assert reason is None or reason.endswith(".")
