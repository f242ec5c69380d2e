"""Users with addresses, whose mails the tests read."""

import secrets
from email.message import EmailMessage
from typing import Any, Self

import httpx

from tests.conftest import PASSWORD, Actor, Service
from tests.mailbox import Mailbox, code, token

NEW_PASSWORD = "a quite different sentence"


class Owner(Actor):
    """A user with an address whose mails can be read."""

    def __init__(self, service: Service, mailbox: Mailbox, address: str, username: str, tokens: dict[str, Any]) -> None:
        super().__init__(service, username, tokens)
        self.mailbox = mailbox
        self.address = address

    @classmethod
    def register(cls, service: Service, mailbox: Mailbox, address: str | None = None) -> Self:
        """Register a user who claims an address."""
        name = f"owner-{secrets.token_hex(6)}"
        address = address or f"{name}@example.com"
        body = {"username": name, "password": PASSWORD, "email": address}
        response = service("POST", "/users/registration", json=body)
        assert response.status_code == 201, response.text
        return cls(service, mailbox, address, name, response.json())

    @classmethod
    def verified(cls, service: Service, mailbox: Mailbox, address: str | None = None) -> Self:
        """Register a user and verify the address."""
        owner = cls.register(service, mailbox, address)
        response = owner.verify(code(owner.mails(subject="is your code")[-1]))
        assert response.status_code == 200, response.text
        return owner

    def mails(self, number: int = 1, *, subject: str = "", to: str | None = None) -> list[EmailMessage]:
        """Wait for so many mails, and return all that have arrived."""
        found: list[EmailMessage] = self.service.run(self.mailbox.arrived(to or self.address, number, subject=subject))
        return found

    def verify(self, sent: str) -> httpx.Response:
        """Send a code."""
        return self.post("/users/me/email/verification", {"code": sent})

    def claim(self, address: str) -> httpx.Response:
        """Ask for another address."""
        access = self.tokens["access_token"]
        return self.service("PUT", "/users/me/email", token=access, json={"email": address})

    def remove(self) -> httpx.Response:
        """Remove the address."""
        return self.service("DELETE", "/users/me/email", token=self.tokens["access_token"])

    def ask_for_reset(self) -> str:
        """Ask for a reset, and return the token of its mail."""
        before = len([mail for mail in self.mailbox.to(self.address) if "new password" in mail["Subject"]])
        assert self.service("POST", "/auth/reset", json={"email": self.address}).status_code == 202
        return token(self.mails(before + 1, subject="new password")[-1])

    def reset(self, sent: str, password: str = NEW_PASSWORD) -> httpx.Response:
        """Set a new password with the token of a mail."""
        return self.service("POST", "/auth/reset/confirmation", json={"token": sent, "new_password": password})

    def login(self, name: str | None = None, password: str = PASSWORD) -> httpx.Response:
        """Log in, by the name or by an address."""
        return self.service("POST", "/auth", json={"username": name or self.username, "password": password})
