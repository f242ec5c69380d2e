"""Users that log in by name, by e-mail address, and with a second factor: a third of all users each."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum

import httpx
from bson import ObjectId

from app.database.collection import Document
from app.factors import totp
from app.models import factors
from app.security.second_factor import PURPOSE
from app.tokens.keys import Encryption
from bench.database import PASSWORD, fill_users, insert, username
from bench.latency import seconds
from bench.machine import BenchFailed
from tools.verified_users import verified_email

TOTP_SECRET = totp.new_secret()  # of every user with a second factor


class Kind(Enum):
    """How a user logs in; the value is the remainder of the user's number."""

    NAME = 0
    EMAIL = 1
    FACTOR = 2

    def numbers(self, users: int) -> range:
        """Return the numbers of the users of this kind."""
        return range(self.value, users, len(Kind))


def fill(uri: str, number: int, encryption: Encryption) -> list[str]:
    """Insert users of all kinds in turn, and return the ids as fill_users does."""
    ids = fill_users(uri, number, _fields)
    of_users = ids[1:]
    insert(uri, "factors", factors.INDEXES, (_factors(of_users[n], encryption) for n in Kind.FACTOR.numbers(number)))
    return ids


def log_in(client: httpx.Client, kind: Kind, number: int) -> float:
    """Log in and return the seconds; with a second factor these are two requests. Raises httpx.HTTPStatusError."""
    name = email(number) if kind is Kind.EMAIL else username(number)
    response = client.post("/auth", json={"username": name, "password": PASSWORD})
    if kind is not Kind.FACTOR:
        return seconds(response)
    if "challenge" not in (asked := response.json()):
        raise BenchFailed(f"a login with a second factor was answered with {response.status_code}")
    code = totp.code_at(TOTP_SECRET, int(time.time()) // totp.STEP_SECONDS)
    answer = {"challenge": asked["challenge"], "code": code}
    return response.elapsed.total_seconds() + seconds(client.post("/auth/second-factor", json=answer))


def email(number: int) -> str:
    """Return the address of a user who logs in by it."""
    return f"{username(number)}@example.com"


def _fields(number: int) -> Document:
    of_kinds: Sequence[Document] = ({}, verified_email(email(number)), {"second_factor": True})
    return of_kinds[number % len(Kind)]


def _factors(user_id: str, encryption: Encryption) -> Document:
    secret = encryption.encrypt(TOTP_SECRET, purpose=PURPOSE, record=user_id)
    enrolled = {"id": ObjectId(), "secret": secret, "step": 0, "added_at": datetime.now(UTC)}
    return {"_id": user_id, "totp": enrolled, "recovery_codes": []}
