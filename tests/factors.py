"""Users with a second factor, whose authenticator is another implementation (pyotp)."""

import time
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import httpx
import pyotp
from pymongo.database import Database

from tests.conftest import PASSWORD, Document, Service
from tests.mail import Owner
from tests.mailbox import Mailbox


def stored_of(service: Service, database: Database[Document]) -> Database[Document]:
    """Return the database of a service, with the options of another one."""
    return database.client.get_database(service.config.MONGO_URI.rpartition("/")[2], database.codec_options)


class Member(Owner):
    """A user who may have an authenticator and recovery codes."""

    authenticator: pyotp.TOTP
    recovery_codes: Sequence[str] = ()

    @classmethod
    def enrolled(cls, service: Service, mailbox: Mailbox, database: Database[Document]) -> Self:
        """Register a user with a verified address and an authenticator, whose first code was used long ago."""
        member = cls.verified(service, mailbox)
        member.enrol()
        member.wait(database)
        return member

    def begin(self) -> httpx.Response:
        """Begin to enrol an authenticator."""
        response = self.post("/users/me/totp")
        if response.status_code == 200:
            self.authenticator = pyotp.TOTP(response.json()["secret"])
        return response

    def confirm(self, code: str | None = None) -> httpx.Response:
        """Confirm the authenticator."""
        return self.post("/users/me/totp/confirmation", {"code": code or self.code()})

    def enrol(self) -> None:
        """Enrol an authenticator."""
        assert self.begin().status_code == 200
        response = self.confirm()
        assert response.status_code == 200, response.text
        self.recovery_codes = response.json()["recovery_codes"]

    def code(self, steps_ago: int = 0) -> str:
        """Return the code of now, or of an earlier or later step."""
        return self.authenticator.at(int(time.time()) - self.authenticator.interval * steps_ago)

    def wait(self, database: Database[Document]) -> None:
        """Have the last code been used ten steps earlier than it was."""
        query = {"_id": self.claims["sub"]}
        assert database.factors.update_one(query, {"$inc": {"totp.step": -10}}).matched_count

    def password_login(self, password: str = PASSWORD) -> httpx.Response:
        """Give the password."""
        return self.service("POST", "/auth", json={"username": self.username, "password": password})

    def challenge(self) -> str:
        """Give the password, and return the challenge."""
        response = self.password_login()
        assert (response.status_code, response.json()["code"]) == (401, "second_factor_required"), response.text
        challenge: str = response.json()["challenge"]
        return challenge

    def answer(self, challenge: str, code: str | None = None) -> httpx.Response:
        """Answer a challenge."""
        body = {"challenge": challenge, "code": code or self.code()}
        return self.service("POST", "/auth/second-factor", json=body)

    def factor_login(self, code: str | None = None) -> httpx.Response:
        """Log in with both factors."""
        return self.answer(self.challenge(), code)

    def other(self, tokens: dict[str, Any]) -> Self:
        """Return the same user in another session."""
        other = copy(self)
        other.tokens = tokens
        return other

    def at(self, service: Service) -> Self:
        """Return the same user in the same session at another service."""
        other = copy(self)
        other.service = service
        return other

    def step_up(self, **body: Any) -> httpx.Response:
        """Authenticate again, and continue in the new session."""
        response = self.post("/auth/step-up", body or {"code": self.code()})
        if response.status_code == 200:
            self.tokens = response.json()
        return response
