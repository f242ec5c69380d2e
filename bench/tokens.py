"""Tokens for the load, and a check that a server accepts and rejects the right ones."""

import json
import secrets
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import httpx
from bson import ObjectId

from app.tokens.access import AccessTokens
from app.tokens.key_set import KeySet
from bench.contenders import ACCESS_TOKEN_SECONDS
from bench.machine import BenchFailed
from bench.servers import Server
from config.product import SLUG

ROTATION = 1000  # the number of tokens in rotation
HELLO = {"Hello": "World!"}
SECRET = {"Hello": "Secret!"}
REJECTED = {401, 422}  # Flask-JWT-Extended returns 422 for a tampered token


class TokenSigner:
    """A signer of this service's tokens for users and sessions that do not exist: the service does not look them up."""

    def __init__(
        self,
        key: str,
        *,
        issuer: str = SLUG,
        key_set: KeySet | None = None,
        lifetime_seconds: int = ACCESS_TOKEN_SECONDS,  # the service accepts no longer one than its own setting
    ) -> None:
        self._tokens = AccessTokens(
            [key.encode()], issuers=[issuer], audience=SLUG, lifetime_seconds=lifetime_seconds, key_set=key_set
        )

    def sign(self, *, user_id: str | None = None, session_id: str | None = None, admin: bool = False) -> str:
        """Return a token that is valid for the lifetime."""
        token, _ = self._tokens.encode(
            user_id=user_id or str(ObjectId()),
            session_id=session_id or secrets.token_urlsafe(16),
            scopes=["guest", "user", "admin"] if admin else ["guest", "user"],
            session_expires=datetime.now(UTC).timestamp() + ACCESS_TOKEN_SECONDS,
        )
        return token

    def sign_many(self, number: int) -> list[str]:
        """Return `number` different tokens."""
        return [self.sign() for _ in range(number)]


def log_in_users(server: Server, number: int) -> list[str]:
    """Log `number` users in to a peer and return their tokens, in the peer's own format."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        responses = (client.post("/auth", json={"username": f"user{n}", "password": "-"}) for n in range(number))
        return [response.raise_for_status().json()["access_token"] for response in responses]


def write(path: Path, lines: Iterable[str]) -> Path:
    """Write a file for load.lua that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def verify(server: Server, tokens: list[str]) -> None:
    """Check that the server accepts the tokens and rejects others. Raises BenchFailed.

    It sends every token once. A server that caches verified tokens has all of them in its cache afterwards.
    """
    with closing(server.connect()) as connection:
        _expect(server, "/tests/hello", get(connection, "/tests/hello"), HELLO)
        for token in (None, _tampered(tokens[0])):
            if get(connection, "/tests/secret", token)[0] not in REJECTED:
                raise BenchFailed(f"{server.name} accepts a missing or tampered token")
        for token in tokens:
            _expect(server, "/tests/secret", get(connection, "/tests/secret", token), SECRET)


def rejected(server: Server, token: str) -> bool:
    """Return whether the server rejects the token with 401."""
    with closing(server.connect()) as connection:
        return get(connection, "/tests/secret", token)[0] == HTTPStatus.UNAUTHORIZED


def get(connection: HTTPConnection, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Send a GET request and return the status and the body."""
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    response = connection.getresponse()
    return response.status, response.read()


def _tampered(token: str) -> str:
    """Change one character in the middle of the signature, where all bits of a character are significant."""
    place = len(token) - 20
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def _expect(server: Server, path: str, response: tuple[int, bytes], body: object) -> None:
    status, text = response
    if status != HTTPStatus.OK or json.loads(text) != body:
        raise BenchFailed(f"{server.name} responds to {path} with {status} {text[:80].decode(errors='replace')}")
