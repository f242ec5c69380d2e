"""The cost of many users: the latency of logins, and of a late page of the list compared with the first."""

import time
from contextlib import ExitStack
from random import Random
from statistics import median

import httpx

from bench.bench import Bench
from bench.database import PASSWORD, fill_users, username
from bench.progress import Plan
from bench.results import Bound, Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup

PAGE_LENGTH = 50  # the service's default
BLOCKS = 10  # the logins and the page reads are divided into blocks, which alternate between the two cases
FEW, MANY = "few_users", "many_users"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return 1 for the preparation plus the number of blocks of logins and of pages."""
    return Plan(1 + 2 * BLOCKS, 1 + scale.many_users / 300_000)


def run(bench: Bench) -> None:
    """Log in sequentially, alternating between databases of both sizes; then read both pages in turn."""
    numbers = {FEW: bench.scale.few_users, MANY: bench.scale.many_users}
    bench.step(f"insert {numbers[MANY]:,} users")
    ids = {name: fill_users(bench.mongo_uri(name), number) for name, number in numbers.items()}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(bench.service(name, name), bench.folder)) for name in numbers}
        bench.results.rows.append(_logins(bench, servers, numbers))
        bench.results.rows.append(_pages(bench, servers[MANY], ids[MANY]))


def _logins(bench: Bench, servers: dict[str, Server], numbers: dict[str, int]) -> Row:
    random = Random(1)  # noqa: S311 - only chooses the users to log in
    blocks: dict[str, list[float]] = {FEW: [], MANY: []}
    for block in range(BLOCKS):
        bench.step(f"log in, block {block + 1} of {BLOCKS}")
        for name, server in servers.items():
            chosen = (random.randrange(numbers[name]) for _ in range(bench.scale.logins // BLOCKS))
            with httpx.Client(base_url=server.url, trust_env=False) as client:
                blocks[name].append(median(_login_seconds(client, username(number)) for number in chosen))
    return Row(
        f"login latency with {numbers[MANY]:,} users / with {numbers[FEW]:,}",
        Ratio.of(blocks[MANY], blocks[FEW]),
        Bound.AT_MOST,
        1.1,
        f"{median(blocks[MANY]) * 1000:.1f} ms / {median(blocks[FEW]) * 1000:.1f} ms",
    )


def _login_seconds(client: httpx.Client, name: str) -> float:
    began = time.perf_counter()
    client.post("/auth", json={"username": name, "password": PASSWORD}).raise_for_status()
    return time.perf_counter() - began


def _pages(bench: Bench, server: Server, ids: list[str]) -> Row:
    late = {"after": ids[(bench.scale.page - 1) * PAGE_LENGTH - 1]}
    blocks: dict[str, list[float]] = {"first": [], "late": []}
    authorization = {"Authorization": f"Bearer {bench.signer.sign(user_id=ids[0], admin=True)}"}
    with httpx.Client(base_url=server.url, headers=authorization, trust_env=False) as client:
        for block in range(BLOCKS):
            bench.step(f"read pages, block {block + 1} of {BLOCKS}")
            for name, query in (("first", {}), ("late", late)):
                reads = range(bench.scale.pages_read // BLOCKS)
                blocks[name].append(median(_page_seconds(client, query) for _ in reads))
    return Row(
        f"page {bench.scale.page:,} of `GET /users` / page 1",
        Ratio.of(blocks["late"], blocks["first"]),
        Bound.AT_MOST,
        1.2,
        f"{median(blocks['late']) * 1000:.1f} ms / {median(blocks['first']) * 1000:.1f} ms, {PAGE_LENGTH} users each",
    )


def _page_seconds(client: httpx.Client, query: dict[str, str]) -> float:
    began = time.perf_counter()
    response = client.get("/users", params=query).raise_for_status()
    seconds = time.perf_counter() - began
    if len(response.json()["users"]) != PAGE_LENGTH:
        raise ValueError("the page is not full")
    return seconds
