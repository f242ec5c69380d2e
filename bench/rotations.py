"""Rotate keys under load: python -m bench.rotations [--rotations 100] [--factor 300].

No valid token may be refused: not by this service, not by its verifiers, not by stock PyJWT and jose with their caches.
The lead time of keys, caches and cool-downs are divided by one factor; 1 stands for all defaults, and takes a quarter
of an hour for each rotation. Every tenth key is dropped: after two seconds, no token of it may be accepted.
"""

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import httpx
import jwt

from bench import ROOT, alone, published, servers
from config.product import SLUG

LEAD_SECONDS, PYJWT_SECONDS = 900, 300  # defaults: of SIGNING_KEY_LEAD_SECONDS, and of PyJWKClient's lifespan
SESSIONS = 20
DROP_EVERY = 10
DROPPED_SECONDS = 2
STOCK = ("PyJWT", "jose")
PASSWORD = secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Issued:
    """A token, with the name of its key and the time at which it was issued."""

    token: str
    kid: str
    at: float


class Verifying:
    """A server that is asked about tokens."""

    def __init__(self, name: str, port: int, path: str) -> None:
        self.name = name
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._path = path

    def accepts(self, token: str) -> bool:
        """Return whether the token is accepted. Raises RuntimeError for what is neither yes nor no."""
        self._connection.request("GET", self._path, headers={"Authorization": f"Bearer {token}"})
        with closing(self._connection.getresponse()) as response:
            response.read()
            if response.status not in (200, 204, 401):
                raise RuntimeError(f"{self.name} answers {response.status}")
            return response.status != 401


class StockPyJwt:
    """PyJWT's own client of key sets, with its cache."""

    name = "PyJWT"

    def __init__(self, url: str, factor: float) -> None:
        self._keys = jwt.PyJWKClient(f"{url}/.well-known/jwks.json", lifespan=PYJWT_SECONDS / factor)

    def accepts(self, token: str) -> bool:
        """Return whether the token is accepted."""
        try:
            key = self._keys.get_signing_key_from_jwt(token)
            jwt.decode(token, key, ["EdDSA"], audience=SLUG, issuer=published.URL)
        except (jwt.PyJWTError, jwt.PyJWKClientError):
            return False
        return True


def scaled_verifiers(folder: Path, factor: float) -> dict[str, list[str]]:
    """Copy the verifiers with their example servers, whose intervals for keys are divided by the factor."""
    servers_of = {"python": ("verifier.py", "resource_server.py"), "node": ("verifier.mjs", "resource_server.mjs")}
    for language, names in servers_of.items():
        (folder / language).mkdir()
        for name in names:
            text = (published.VERIFIERS / language / name).read_text()
            (folder / language / name).write_text(scaled(text, factor))
    (folder / "node" / "node_modules").symlink_to(published.VERIFIERS / "node" / "node_modules")
    return {
        "our Python": [sys.executable, str(folder / "python" / "resource_server.py")],
        "our Node": ["node", str(folder / "node" / "resource_server.mjs")],
    }


INTERVALS = (r"(UNKNOWN_KEY_SECONDS = )(300), (30)", r"(unknownKeySeconds = )(30)\b", r"(#renewKeys\(\), )(300)")


def scaled(text: str, factor: float) -> str:
    """Divide the intervals for keys in the text of a file, if it has any."""

    def divided(found: re.Match[str]) -> str:
        return found[1] + ", ".join(str(int(one) / factor) for one in found.groups()[1:])

    for pattern in INTERVALS:
        text = re.sub(pattern, divided, text)
    return text


class Run:
    """The load, and what was refused or wrongly accepted."""

    def __init__(self, service: servers.Server, verifying: list[Verifying | StockPyJwt], rate: float) -> None:
        self._service = service
        self._rate = rate
        self._http = httpx.Client(base_url=service.url, trust_env=False, timeout=60)
        self._verifying = verifying
        self._refresh: list[str] = []
        self._tokens: list[Issued] = []
        self._dropped: dict[str, float] = {}  # when each key was dropped
        self.asked: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.accepted_late: Counter[str] = Counter()
        self.kids: list[str] = []
        self.over = threading.Event()

    def start(self) -> None:
        """Log in all sessions."""
        body = {"username": "rotations", "password": PASSWORD}
        self._http.post("/users/registration", json=body).raise_for_status()
        for _ in range(SESSIONS):
            self._take(self._http.post("/auth", json=body).raise_for_status().json())
            time.sleep(0.1)

    def _take(self, tokens: dict[str, str]) -> None:
        kid = jwt.get_unverified_header(tokens["access_token"])["kid"]
        if kid not in self.kids:
            self.kids.append(kid)
        self._tokens.append(Issued(tokens["access_token"], kid, time.monotonic()))
        self._refresh.append(tokens["refresh_token"])

    def run(self) -> None:
        """Refresh one session after the other, and ask everybody about the newest and an older token."""
        number, began = 0, time.monotonic()
        while not self.over.is_set():
            response = self._http.post("/auth/refresh", json={"refresh_token": self._refresh.pop(0)})
            self._take(response.raise_for_status().json())
            del self._tokens[:-2000]
            for issued in (self._tokens[-1], secrets.choice(self._tokens)):
                self._ask(issued)
                number += len(self._verifying)
            time.sleep(max(0.0, began + number / self._rate - time.monotonic()))

    def _ask(self, issued: Issued) -> None:
        for verifying in self._verifying:
            dropped_at = self._dropped.get(issued.kid)
            accepted = verifying.accepts(issued.token)
            self.asked[verifying.name] += 1
            if dropped_at is None and issued.kid not in self._dropped:
                self.refused[verifying.name] += not accepted
            elif dropped_at and time.monotonic() > dropped_at + DROPPED_SECONDS and verifying.name not in STOCK:
                self.accepted_late[verifying.name] += accepted

    def drop(self) -> None:
        """Drop the latest key, once others may know the next one.

        Its tokens may be refused from now on, and must be after a while.
        """
        kid = self.kids[-1]
        self._dropped[kid] = float("inf")
        contender = self._service.contender
        command = [contender.command[0], "app", "exec", "drop-key", f"--kid={kid}"]
        environment = {**os.environ, **contender.environment}
        while subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True).returncode:
            time.sleep(0.2)
        self._dropped[kid] = time.monotonic()


def main() -> int:
    """Rotate, and print what happened. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.rotations", description=__doc__)
    parser.add_argument("--rotations", type=int, default=100)
    parser.add_argument("--factor", type=float, default=300)
    parser.add_argument("--rate", type=float, default=200, help="requests per second, to all five together")
    options = parser.parse_args()
    lead = LEAD_SECONDS / options.factor
    settings = {
        "APP_ENV": "testing",
        "APP_SIGNING_KEY_LEAD_SECONDS": str(lead),
        "APP_SIGNING_KEY_DAYS": str(lead * 1.05 / 86400),
        "APP_LOGINS_PER_ACCOUNT": "1000/minute",
    }
    with (
        alone.service({**published.settings(), **settings}, workers=2) as service,
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as running,
    ):
        others = {**published.variables_of_verifiers(service), "FACTOR": str(options.factor)}
        verifying: list[Verifying | StockPyJwt] = [Verifying("this service", service.port, "/tests/secret")]
        verifying.append(StockPyJwt(service.url, options.factor))
        for name, command in scaled_verifiers(Path(folder), options.factor).items():
            verifying.append(Verifying(name, running.enter_context(alone.beside(command, others)), "/orders"))
        jose = ["node", str(ROOT / "bench" / "jose.mjs")]
        verifying.append(Verifying("jose", running.enter_context(alone.beside(jose, others)), "/"))
        time.sleep(5)  # until the verifiers have read everything
        run = Run(service, verifying, options.rate)
        run.start()
        load = threading.Thread(target=run.run)
        load.start()
        dropped = 0
        while len(run.kids) <= options.rotations + dropped and load.is_alive():
            time.sleep(0.2)
            if len(run.kids) - dropped > (dropped + 1) * DROP_EVERY:
                run.drop()
                dropped += 1
        run.over.set()
        load.join()
    print(f"{len(run.kids) - 1} rotations, of these {dropped} because the key was dropped; lead {lead:g} s")
    for name, number in run.asked.items():
        late = f"{run.accepted_late[name]} of a dropped key accepted after {DROPPED_SECONDS} s"
        print(f"{name}: asked {number} times, {run.refused[name]} valid tokens refused, {late}")
    accepted = sum(number for name, number in run.accepted_late.items() if name not in STOCK)  # which follow no feed
    return int(any(run.refused.values()) or accepted > 0)


if __name__ == "__main__":
    sys.exit(main())
