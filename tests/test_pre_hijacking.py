"""Account pre-hijacking: the five attacks of Sudhodanan and Paverd (2022), one test each.

The attacker prepares an account for the victim's address, and waits for the victim to use it.
"""

import secrets

import pytest

from tests.conftest import PASSWORD, Service
from tests.mail import NEW_PASSWORD, Owner
from tests.mailbox import Mailbox, code, text, token


@pytest.fixture
def attacker(mailing: Service, mailbox: Mailbox) -> Owner:
    """Register an attacker, who claims the victim's address."""
    return Owner.register(mailing, mailbox, f"victim-{secrets.token_hex(6)}@example.com")


def victim_of(attacker: Owner) -> Owner:
    """Register the victim, who verifies the address that the attacker claims."""
    victim = Owner.register(attacker.service, attacker.mailbox, attacker.address)
    sent = next(mail for mail in victim.mails(2) if victim.username in text(mail))
    assert victim.verify(code(sent)).status_code == 200
    return victim


def test_classic_federated_merge(attacker: Owner) -> None:
    """Two accounts with one address are never merged: the attacker's password opens nothing of the victim's."""
    victim = victim_of(attacker)
    assert victim.claims["sub"] != attacker.claims["sub"]
    assert attacker.login(attacker.address, "the attacker's own sentence").status_code == 401
    by_address = victim.login(victim.address).json()["access_token"]
    assert victim.service("GET", "/auth/me", token=by_address).json()["id"] == victim.claims["sub"]
    assert attacker.get("/auth/me").json()["email_verified"] is False


def test_unexpired_session_identifier(mailing: Service, mailbox: Mailbox) -> None:
    """The attacker's session of the account ends when the victim recovers it."""
    victim = Owner.verified(mailing, mailbox)
    stolen = victim.login().json()
    assert victim.reset(victim.ask_for_reset()).status_code == 204
    assert mailing("GET", "/auth/me", token=stolen["access_token"]).status_code == 401
    assert mailing("POST", "/auth/refresh", json={"refresh_token": stolen["refresh_token"]}).status_code == 401


def test_trojan_identifier(mailing: Service, mailbox: Mailbox) -> None:
    """An address that the attacker has added to the account opens nothing after the victim has undone it."""
    victim = Owner.verified(mailing, mailbox)
    trojan = f"attacker-{secrets.token_hex(6)}@example.com"
    assert victim.claim(trojan).status_code == 202
    assert victim.verify(code(victim.mails(to=trojan)[0])).status_code == 200
    assert victim.remove().status_code == 204
    attackers_undo = token(victim.mails(to=trojan, subject="was removed")[0])
    undo = token(victim.mails(subject="was changed")[0])
    assert mailing("POST", "/users/email/undo", json={"token": undo}).status_code == 204
    assert victim.reset(victim.ask_for_reset()).status_code == 204
    assert mailing("POST", "/users/email/undo", json={"token": attackers_undo}).status_code == 401
    assert victim.login(trojan, NEW_PASSWORD).status_code == 401
    before = len(mailbox.to(trojan))
    assert mailing("POST", "/auth/reset", json={"email": trojan}).status_code == 202
    victim.ask_for_reset()
    assert len(mailbox.to(trojan)) == before


def test_unexpired_email_change(mailing: Service, mailbox: Mailbox) -> None:
    """A change that the attacker has started cannot be completed after the victim has recovered the account."""
    victim, trojan = Owner.verified(mailing, mailbox), f"attacker-{secrets.token_hex(6)}@example.com"
    assert victim.claim(trojan).status_code == 202
    sent = code(victim.mails(to=trojan)[0])
    assert victim.reset(victim.ask_for_reset()).status_code == 204
    victim.tokens = victim.login(password=NEW_PASSWORD).json()
    refused = victim.verify(sent)
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_to_verify")
    assert victim.login(trojan, NEW_PASSWORD).status_code == 401


def test_non_verifying_identity_provider(attacker: Owner) -> None:
    """Nobody's word for an address counts: unverified, it neither logs in nor resets, and keeps nobody out."""
    assert attacker.login(attacker.address).status_code == 401
    assert attacker.service("POST", "/auth/reset", json={"email": attacker.address}).status_code == 202
    victim = victim_of(attacker)
    assert not [mail for mail in victim.mails() if "new password" in mail["Subject"]]
    assert victim.login(victim.address, PASSWORD).status_code == 200
