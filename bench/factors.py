"""Measure how long a login with a second factor takes, compared with one without: python -m bench.factors.

Both users log in by turns. A login with a second factor is two requests: the password, then the code of an
authenticator, whose use counts by one conditional write. Prints the medians and their ratio.
"""

import argparse
import base64
import secrets
import statistics
import time
from typing import Any

import httpx
from pymongo import MongoClient

from app.database.collection import Document
from app.factors import totp
from bench import alone

PASSWORD = secrets.token_urlsafe(24)
SETTINGS = {"APP_LOGINS_PER_ACCOUNT": "100000/minute", "APP_REGISTRATIONS_PER_ADDRESS": "100000/minute"}


class User:
    """A user, with a second factor or without."""

    def __init__(self, http: httpx.Client, uri: str, *, factor: bool) -> None:
        self._http = http
        self._factors = MongoClient[Document](uri).get_default_database().factors
        self._name = f"user-{secrets.token_hex(4)}"
        tokens = self._post("/users/registration", 201, username=self._name, password=PASSWORD)
        self._secret = self._enrol(tokens["access_token"]) if factor else None

    def log_in(self) -> float:
        """Log in, and return how many seconds it took."""
        began = time.perf_counter()
        if self._secret is None:
            self._post("/auth", 200, username=self._name, password=PASSWORD)
        else:
            asked = self._post("/auth", 401, username=self._name, password=PASSWORD)
            self._post("/auth/second-factor", 200, challenge=asked["challenge"], code=self._code(self._secret))
        seconds = time.perf_counter() - began
        self._factors.update_many({}, {"$set": {"totp.step": 0}})  # as if the last code was used long ago
        return seconds

    def _enrol(self, access_token: str) -> bytes:
        headers = {"Authorization": f"Bearer {access_token}"}
        text = self._http.post("/users/me/totp", headers=headers).raise_for_status().json()["secret"]
        secret = base64.b32decode(text)
        body = {"code": self._code(secret)}
        self._http.post("/users/me/totp/confirmation", headers=headers, json=body).raise_for_status()
        self._factors.update_many({}, {"$set": {"totp.step": 0}})
        return secret

    def _post(self, path: str, status: int, **body: str) -> dict[str, Any]:
        response = self._http.post(path, json=body)
        if response.status_code != status:
            raise AssertionError(response.text)
        content: dict[str, Any] = response.json()
        return content

    @staticmethod
    def _code(secret: bytes) -> str:
        return totp.code_at(secret, int(time.time()) // totp.STEP_SECONDS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.factors", description=__doc__)
    parser.add_argument("--logins", type=int, default=300)
    logins = parser.parse_args().logins
    settings = {**SETTINGS, "APP_ENCRYPTION_KEY": secrets.token_urlsafe(48)}
    with alone.service(settings) as server, httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        users = {name: User(http, alone.uri_of(server), factor=name == "with") for name in ("without", "with")}
        seconds: dict[str, list[float]] = {name: [] for name in users}
        for _ in range(logins):
            for name, user in users.items():
                seconds[name].append(user.log_in())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name} a second factor: median {1000 * median:.1f} ms")
    print(f"ratio {medians['with'] / medians['without']:.2f}")


if __name__ == "__main__":
    main()
