"""Requests to the service, its answers, and accounts with their tokens."""

from dataclasses import dataclass

import jwt

from tests.conftest import PASSWORD, Document


@dataclass(frozen=True)
class Request:
    """A request, with `token` in the Authorization header."""

    method: str
    path: str
    token: str | None = None
    body: Document | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answer:
    """A response: its status, 0 if the connection failed, and its body."""

    status: int
    body: Document

    def __str__(self) -> str:
        return f"{self.status} {self.body.get('code', '')}".strip()

    @property
    def succeeded(self) -> bool:
        """Whether the service did what was asked."""
        return 200 <= self.status < 300


READY = Request("GET", "/health/ready")
HELLO = Request("GET", "/tests/hello")


def with_token(path: str, token: str) -> Request:
    """Return a request that reads something with an access token."""
    return Request("GET", path, token)


def secret(token: str) -> Request:
    """Return a request that any valid access token allows; the worker answers it without the database."""
    return with_token("/tests/secret", token)


def registration(username: str) -> Request:
    """Return a request that registers a user."""
    return Request("POST", "/users/registration", body={"username": username, "password": PASSWORD})


def login(username: str, password: str = PASSWORD) -> Request:
    """Return a request that logs a user in."""
    return Request("POST", "/auth", body={"username": username, "password": password})


def refresh(refresh_token: str) -> Request:
    """Return a request that exchanges a refresh token."""
    return Request("POST", "/auth/refresh", body={"refresh_token": refresh_token})


def logout(token: str) -> Request:
    """Return a request that ends the session of an access token."""
    return Request("POST", "/auth/logout", token)


@dataclass(frozen=True)
class Account:
    """A user with the tokens of one session."""

    username: str
    tokens: Document

    @property
    def access_token(self) -> str:
        """The access token."""
        return str(self.tokens["access_token"])

    @property
    def refresh_token(self) -> str:
        """The refresh token."""
        return str(self.tokens["refresh_token"])

    @property
    def user_id(self) -> str:
        """The user's id."""
        return str(self._claims["sub"])

    @property
    def session_id(self) -> str:
        """The session's id."""
        return str(self._claims["sid"])

    @property
    def _claims(self) -> Document:
        claims: Document = jwt.decode(self.access_token, options={"verify_signature": False})
        return claims
