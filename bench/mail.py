"""Measure whether requests notice the mail server: python -m bench.mail [--rounds 20].

One worker sends mails to a server that takes them in one round, and hangs in the next. In each round clients ask for
resets, half of them for users with verified addresses. Prints the median and p99 of both, and their ratio.
"""

import argparse
import asyncio
import re
import secrets
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from typing import Any

import httpx
from aiosmtpd.controller import Controller

from app.models.users import INDEXES
from bench import alone
from bench.database import insert
from tools.local_mongo import free_port
from tools.verified_users import verified_user

CLIENTS = 8
REQUESTS = 400  # in a round
USERS = 2000  # each is mailed at most five times in an hour
SETTINGS = {
    "APP_ENV": "testing",  # the mail server has no TLS
    "APP_MAIL_FROM": "no-reply@demo.example",
    "APP_PUBLIC_URL": "https://demo.example",
    "APP_RESETS_PER_ADDRESS": "1000000/minute",
    "APP_MAILS_PER_MINUTE": "100000",
}
RESET_LINK = re.compile(r"/reset#token=([\w-]+)")
SETTLE_SECONDS = 1.0  # after a change of the mail server


class MailServer:
    """Takes mails, or hangs. Keeps the latest reset token of each address until it is read."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.taken = 0
        self.reset_tokens: dict[str, str] = {}

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """Answer RCPT TO, or not."""
        while self.hangs.is_set():  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.05)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Take a mail."""
        self.taken += 1
        text = message_from_bytes(envelope.content, policy=default).get_content()
        if found := RESET_LINK.search(text):
            self.reset_tokens[envelope.rcpt_tos[0]] = found[1]
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[tuple[MailServer, str]]:
    """Run a mail server in a thread; yield it and its URL."""
    server, port = MailServer(), free_port()
    controller = Controller(server, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield server, f"smtp://127.0.0.1:{port}"
    finally:
        server.hangs.clear()
        controller.stop()


def add_users(uri: str) -> dict[str, str]:
    """Add users with verified addresses, and return their ids by address."""
    addresses = [f"{secrets.token_hex(8)}@example.com" for _ in range(USERS)]
    users = [verified_user(f"user-{number}", "no hash", address) for number, address in enumerate(addresses)]
    insert(uri, "users", INDEXES, users)
    return {address: str(user["_id"]) for address, user in zip(addresses, users, strict=True)}


async def ask(url: str, addresses: Iterator[str]) -> list[float]:
    """Ask for a reset for each address, and return the durations in seconds."""
    seconds: list[float] = []

    async def work(http: httpx.AsyncClient) -> None:
        for address in addresses:
            began = time.perf_counter()
            response = await http.post("/auth/reset", json={"email": address})
            seconds.append(time.perf_counter() - began)
            response.raise_for_status()

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        await asyncio.gather(*(work(http) for _ in range(CLIENTS)))
    return seconds


def measure(url: str, server: MailServer, known: list[str], rounds: int) -> dict[bool, list[float]]:
    """Return the durations while the mail server takes mails (False), and while it hangs (True)."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * rounds + 2):  # the first of each warms up
        hangs = bool(number % 2)
        (server.hangs.set if hangs else server.hangs.clear)()
        time.sleep(SETTLE_SECONDS)
        unknown = [f"{secrets.token_hex(8)}@example.com" for _ in range(REQUESTS // 2)]
        chosen = [*unknown, *(secrets.choice(known) for _ in range(REQUESTS // 2))]
        secrets.SystemRandom().shuffle(chosen)
        durations = asyncio.run(ask(url, iter(chosen)))
        if number > 1:
            seconds[hangs] += durations
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.mail", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with mail_server() as (server, smtp_url), alone.service({**SETTINGS, "APP_SMTP_URL": smtp_url}) as service:
        seconds = measure(service.url, server, list(add_users(alone.uri_of(service))), rounds)
    p99 = {}
    for hangs, values in seconds.items():
        p99[hangs] = statistics.quantiles(values, n=100)[98]
        state = "hangs" if hangs else "takes mails"
        print(f"mail server {state}: median {1000 * statistics.median(values):.2f} ms, p99 {1000 * p99[hangs]:.2f} ms")
    print(f"p99 hanging / fine: {p99[True] / p99[False]:.2f}, {len(seconds[True])} requests each, {server.taken} mails")


if __name__ == "__main__":
    main()
