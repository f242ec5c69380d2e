"""Measure how soon other services refuse the token of an ended session: python -m bench.foreign [--logouts 10000].

This service runs with two workers and EdDSA, and the example resource servers in Python and Node follow it. For each
session: log out at a random moment, then ask both servers until they answer 401. Prints the delays after the 204 (p50,
p99, max) and how many requests the resource servers have sent to this service while they answered.
"""

import argparse
import http.client
import random
import statistics
import sys
import threading
import time
from contextlib import ExitStack, closing
from itertools import count

from bench import alone, published
from bench.database import fill_sessions

CLIENTS = 20
SPREAD_SECONDS = 1  # over which logouts are spread, or each would follow the look that has shown the one before
PAUSE_SECONDS = 0.01  # between two questions to one server
COMMANDS = {
    "Python": [sys.executable, str(published.VERIFIERS / "python" / "resource_server.py")],
    "Node": ["node", str(published.VERIFIERS / "node" / "resource_server.mjs")],
}


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
            time.sleep(random.uniform(0, SPREAD_SECONDS))  # noqa: S311  # spreads the load, hides nothing
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
    with alone.service(published.settings(), workers=2) as server, ExitStack() as running:
        variables = published.variables_of_verifiers(server)
        others = {name: running.enter_context(alone.beside(line, variables)) for name, line in COMMANDS.items()}
        time.sleep(5)  # until both have read the whole state
        tokens = published.signer(server)
        signed = [tokens.sign(session_id=id_) for id_ in fill_sessions(alone.uri_of(server), logouts)]
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
