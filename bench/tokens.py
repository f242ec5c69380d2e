"""Tokens to make load with, and whether a server treats them as it must."""

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

from app.security.access_tokens import AccessTokens
from bench.contenders import ACCESS_TOKEN_SECONDS
from bench.machine import BenchFailed
from bench.servers import Server

ROTATION = 1000  # tokens that take turns
HELLO = {"Hello": "World!"}
SECRET = {"Hello": "Secret!"}
REFUSED = {401, 422}  # Flask-JWT-Extended says 422 to a token that was tampered with


class Mint:
    """Tokens of this service's form, for users and sessions that never were: the service does not look them up."""

    def __init__(self, key: str) -> None:
        self._tokens = AccessTokens([key.encode()], lifetime_seconds=ACCESS_TOKEN_SECONDS)

    def make(self, *, user_id: str | None = None, session_id: str | None = None, admin: bool = False) -> str:
        """Return a token that holds for an hour."""
        token, _ = self._tokens.sign(
            user_id=user_id or str(ObjectId()),
            session_id=session_id or secrets.token_urlsafe(16),
            scopes=["guest", "user", "admin"] if admin else ["guest", "user"],
            session_expires=datetime.now(UTC).timestamp() + ACCESS_TOKEN_SECONDS,
        )
        return token

    def several(self, number: int) -> list[str]:
        """Return so many different tokens."""
        return [self.make() for _ in range(number)]


def ask_for(server: Server, number: int) -> list[str]:
    """Have a peer hand out tokens of its own form, for as many users."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        answers = (client.post("/auth", json={"username": f"user{n}", "password": "-"}) for n in range(number))
        return [answer.raise_for_status().json()["access_token"] for answer in answers]


def write(path: Path, lines: Iterable[str]) -> Path:
    """Write a file that load.lua reads, for nobody else's eyes."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def verify(server: Server, tokens: list[str]) -> None:
    """Make sure that the server greets everyone, token holders and nobody else. Raises BenchFailed.

    Every token is shown once, so that what a server remembers of tokens it remembers from here on.
    """
    with closing(server.connect()) as connection:
        _expect(server, "/tests/hello", ask(connection, "/tests/hello"), HELLO)
        for token in (None, _tampered(tokens[0])):
            if ask(connection, "/tests/secret", token)[0] not in REFUSED:
                raise BenchFailed(f"{server.name} lets in who has no token of its own")
        for token in tokens:
            _expect(server, "/tests/secret", ask(connection, "/tests/secret", token), SECRET)


def refused(server: Server, token: str) -> bool:
    """Tell whether a token is refused with 401."""
    with closing(server.connect()) as connection:
        return ask(connection, "/tests/secret", token)[0] == HTTPStatus.UNAUTHORIZED


def ask(connection: HTTPConnection, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Return status and body of an answer."""
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def _tampered(token: str) -> str:
    """Change one character in the middle of the signature, where each of its bits counts."""
    place = len(token) - 20
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def _expect(server: Server, path: str, answer: tuple[int, bytes], body: object) -> None:
    status, text = answer
    if status != HTTPStatus.OK or json.loads(text) != body:
        raise BenchFailed(f"{server.name} answers {path} with {status} {text[:80].decode(errors='replace')}")
