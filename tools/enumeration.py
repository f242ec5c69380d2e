"""Measure whether responses tell who has an account (user enumeration): python -m tools.enumeration [--pairs 2000].

For each anonymous route that takes an address, requests with known and unknown addresses alternate; and logins with
a wrong password of users with a second factor alternate with those of users without. The responses must have the same
bytes, except the request id and the tokens of a registration, and their times must not tell them apart: the area under
the curve (AUC) of a classifier by time is 0.5 for chance. With --leak, a known address takes 2 ms longer, which must be
found.
"""

import argparse
import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from sanic_testing.reusable import ReusableClient

from app import create_app
from app.security.passwords import CONTEXT
from config.environments import TestingConfig
from tools.local_mongo import free_port, local_mongo
from tools.verified_users import verified_user

MOST_AUC = 0.55
LEAK_SECONDS = 0.002
KNOWN = 50  # users of each kind
WARM_UP = 50
PASSWORD = "correct horse battery staple"  # noqa: S105 - of users in a temporary database
VARIABLE = re.compile(rb'"(?:request_id|access_token|refresh_token|id|username|created_at|email)":"[^"]*"')


@dataclass(frozen=True)
class Route:
    """A route, and the body for an address.

    With `of_factors` it is asked who has a second factor, not who has an account.
    """

    name: str
    path: str
    body: Callable[[str], dict[str, str]]
    of_factors: bool = False


ROUTES = (
    Route("reset", "/auth/reset", lambda address: {"email": address}),
    Route("login", "/auth", lambda address: {"username": address, "password": "wrong"}),
    Route("factor", "/auth", lambda address: {"username": address, "password": "wrong"}, of_factors=True),
    Route(
        "registration",
        "/users/registration",
        lambda address: {"username": f"u-{secrets.token_hex(8)}", "password": PASSWORD, "email": address},
    ),
)


def auc(known: list[float], unknown: list[float]) -> float:
    """Return the probability that a known one takes longer than an unknown one; below 0.5, its complement."""
    ranked = sorted([(one, True) for one in known] + [(one, False) for one in unknown])
    ranks = sum(rank for rank, (_, is_known) in enumerate(ranked, 1) if is_known)
    area = (ranks - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown))
    return max(area, 1 - area)


async def measure(
    http: httpx.AsyncClient, route: Route, known: list[str], others: Callable[[], str], pairs: int
) -> tuple[float, bool]:
    """Return the AUC, and whether all responses had the same bytes."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    responses: dict[bool, set[Any]] = {True: set(), False: set()}
    for number in range(WARM_UP + pairs):
        for is_known in (True, False) if secrets.randbelow(2) else (False, True):
            address = secrets.choice(known) if is_known else others()
            began = time.perf_counter()
            response = await http.post(route.path, json=route.body(address))
            if number >= WARM_UP:
                seconds[is_known].append(time.perf_counter() - began)
            responses[is_known].add((response.status_code, VARIABLE.sub(b"", response.content)))
    return auc(seconds[True], seconds[False]), responses[True] == responses[False]


def make_app(uri: str, slow: set[str]) -> Any:
    """Make a service whose mails go nowhere, and whose responses to some addresses are slow."""
    limits = dict.fromkeys(("PAIR", "ACCOUNT", "ADDRESS"), "1000000/minute")
    config = TestingConfig(
        JWT_SECRET_KEY=secrets.token_urlsafe(48),
        MONGO_URI=uri,
        SMTP_URL=f"smtp://127.0.0.1:{free_port()}",
        MAIL_FROM="no-reply@demo.example",
        PUBLIC_URL="https://demo.example",
        REGISTRATIONS_PER_ADDRESS="1000000/minute",
        RESETS_PER_ADDRESS="1000000/minute",
        **{f"LOGIN_FAILURES_PER_{name}": rate for name, rate in limits.items()},
    )
    app = create_app(config=config)
    if slow:

        @app.on_request
        async def wait(request: Any) -> None:
            if request.body and slow & set(json.loads(request.body).values()):
                await asyncio.sleep(LEAK_SECONDS)

    return app


def unknown() -> str:
    """Return an address that nobody has."""
    return f"{secrets.token_hex(8)}@example.com"


def main() -> int:
    """Measure all routes. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.enumeration", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--leak", action="store_true", help="delay responses to known addresses by 2 ms")
    parser.add_argument("--route", choices=[route.name for route in ROUTES])
    options = parser.parse_args()
    known, enrolled, without = ([unknown() for _ in range(KNOWN)] for _ in range(3))
    found = []
    with local_mongo() as mongo:
        app = make_app(mongo.uri, {*known, *enrolled} if options.leak else set())
        client = ReusableClient(app, host="127.0.0.1", port=free_port())
        with client:
            client._run(add_users(app, [*known, *without], enrolled))
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{client.port}", timeout=60, trust_env=False)
            for route in ROUTES:
                if options.route in (None, route.name):
                    who, others = (enrolled, lambda: secrets.choice(without)) if route.of_factors else (known, unknown)
                    area, same = client._run(measure(http, route, who, others, options.pairs))
                    print(f"{route.name}: AUC {area:.3f} of {options.pairs} pairs, same bytes: {same}", flush=True)
                    found.append(area > MOST_AUC or not same)
            client._run(http.aclose())
    return int(not all(found) if options.leak else any(found))


async def add_users(app: Any, addresses: list[str], enrolled: list[str]) -> None:
    """Add users with verified addresses, some of whom have a second factor."""
    password_hash = CONTEXT.hash(PASSWORD)
    for address in (*addresses, *enrolled):
        user = verified_user(f"known-{secrets.token_hex(6)}", password_hash, address)
        await app.ctx.users._users.insert(user | ({"second_factor": True} if address in enrolled else {}))


if __name__ == "__main__":
    sys.exit(main())
