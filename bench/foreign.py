"""Measure how soon other services refuse the token of an ended session: python -m bench.foreign [--logouts 10000].

This service runs with two workers and EdDSA, and the example resource servers in Python and Node follow it. For each
session: log out, then ask both servers until they answer 401. Prints the delays after the 204 (p50, p99, max) and how
many requests the resource servers have sent to this service while they answered.
"""

import argparse
import http.client
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from bson import ObjectId
from pymongo import MongoClient

from app.database.collection import Document
from app.security.keys import PURPOSE
from app.tokens.access import AccessTokens
from app.tokens.key_set import KeySet
from app.tokens.keys import Encrypted, Encryption, SigningKey
from bench import ROOT, contenders, servers
from bench.checkouts import OURS, Checkout
from bench.database import fill_sessions
from config.product import SLUG
from tools.local_mongo import free_port, local_mongo

URL = "https://demo.example"
CLIENTS = 10
PAUSE_SECONDS = 0.01  # between two questions to one server
LIFETIME_SECONDS = 3600
VERIFIERS = ROOT / "verifiers"
COMMANDS = {
    "Python": [sys.executable, str(VERIFIERS / "python" / "resource_server.py")],
    "Node": ["node", str(VERIFIERS / "node" / "resource_server.mjs")],
}


def signer(uri: str, encryption_key: str) -> AccessTokens:
    """Return a signer with the key that signs, read from the database."""
    with MongoClient[Document](uri) as client:
        ring = client.get_default_database()["keys"].find_one() or {}
    stored = next(key for key in ring["keys"] if key["kid"] == ring["current"])
    encryption = Encryption([encryption_key.encode()], product=SLUG)
    der = encryption.decrypt(Encrypted(**stored["secret"]), purpose=PURPOSE, record=stored["kid"])
    keys = KeySet(hmac_signs=False)
    keys.signing = SigningKey.from_der(der)
    return AccessTokens(
        [secrets.token_bytes(32)], issuers=[URL], audience=SLUG, lifetime_seconds=LIFETIME_SECONDS, key_set=keys
    )


@contextmanager
def resource_server(name: str, service_url: str) -> Iterator[int]:
    """Run an example resource server, and yield its port."""
    port = free_port()
    variables = {"SERVICE_URL": service_url, "ISSUER": URL, "AUDIENCE": SLUG, "PORT": str(port)}
    process = subprocess.Popen(COMMANDS[name], env={**os.environ, **variables}, cwd=VERIFIERS)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


class Client:
    """A persistent connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def status(self, method: str, path: str, token: str) -> int:
        """Return the status of a request with a token."""
        self._connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
        with closing(self._connection.getresponse()) as response:
            response.read()
            return response.status

    def wait_for(self, status: int, token: str) -> int:
        """Ask until the answer has this status, and return how often."""
        for asked in count(1):
            if self.status("GET", "/orders", token) == status:
                return asked
            time.sleep(PAUSE_SECONDS)
        raise AssertionError


class Run:
    """The logouts of all clients, and what they have measured."""

    def __init__(self, service: int, others: dict[str, int], tokens: list[str]) -> None:
        self._service, self._others = service, others
        self._tokens = iter(tokens)
        self._lock = threading.Lock()
        self.seconds: dict[str, list[float]] = {name: [] for name in others}
        self.asked = 0

    def run(self) -> None:
        """Run all clients."""
        threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _next(self) -> str | None:
        with self._lock:
            return next(self._tokens, None)

    def _client(self) -> None:
        service = Client(self._service)
        others = {name: Client(port) for name, port in self._others.items()}
        while token := self._next():
            asked = sum(other.wait_for(200, token) for other in others.values())
            if service.status("POST", "/auth/logout", token) != 204:
                raise AssertionError("the logout failed")
            ended, waiting = time.monotonic(), dict(others)
            while waiting:
                for name, other in list(waiting.items()):
                    asked += 1
                    if other.status("GET", "/orders", token) == 401:
                        self.seconds[name].append(time.monotonic() - ended)
                        del waiting[name]
                time.sleep(PAUSE_SECONDS)
            self.asked += asked


def calls(url: str) -> dict[str, float]:
    """Return the requests that the service has counted, by route."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    counted: dict[str, float] = {}
    for line in lines:
        if line.startswith("http_request_duration_seconds_count"):
            route = line.split('route="')[1].split('"')[0]
            counted[route] = counted.get(route, 0) + float(line.rpartition(" ")[2])
    return counted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.foreign", description=__doc__)
    parser.add_argument("--logouts", type=int, default=10_000)
    logouts = parser.parse_args().logouts
    encryption_key = secrets.token_urlsafe(48)
    with local_mongo() as mongo, tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        uri = f"{mongo.uri.rpartition('/')[0]}/bench_foreign"
        checkout = Checkout(OURS, ROOT, ROOT / os.environ.get("VENV", ".venv"))
        ours = contenders.service(checkout, secrets.token_urlsafe(48), uri, workers=2, cores="0,1")
        keys = {"APP_JWT_ALGORITHM": "EdDSA", "APP_ENCRYPTION_KEY": encryption_key, "APP_PUBLIC_URL": URL}
        contender = replace(ours, environment={**ours.environment, **keys})
        server = running.enter_context(servers.running(contender, Path(folder)))
        others = {name: running.enter_context(resource_server(name, server.url)) for name in COMMANDS}
        time.sleep(5)  # until both have read the whole state
        tokens = signer(uri, encryption_key)
        signed = [
            tokens.encode(user_id=str(ObjectId()), session_id=id_, scopes=["user"], session_expires=time.time() + 3600)[
                0
            ]
            for id_ in fill_sessions(uri, logouts)
        ]
        before, began = calls(server.url), time.monotonic()
        run = Run(server.port, others, signed)
        run.run()
        elapsed, after = time.monotonic() - began, calls(server.url)
    for name, seconds in run.seconds.items():
        hundredths = statistics.quantiles(seconds, n=100)
        print(
            f"{name}: {len(seconds)} logouts, 401 after p50 {hundredths[49]:.2f} s, p99 {hundredths[98]:.2f} s, "
            f"max {max(seconds):.2f} s"
        )
    made = {route: int(number - before.get(route, 0)) for route, number in after.items()}
    print(f"{run.asked} requests to the resource servers in {elapsed:.0f} s; requests to the service by route: {made}")


if __name__ == "__main__":
    main()
