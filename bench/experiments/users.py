"""The cost of many users: the latency of logins, and of a late page of the list compared with the first."""

import secrets
from contextlib import ExitStack
from random import Random
from statistics import median

import httpx

from app.tokens.keys import Encryption
from bench.accounts import Kind, fill, log_in
from bench.bench import Bench, alternate
from bench.latency import BLOCKS, row, seconds
from bench.progress import Plan
from bench.results import Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup
from config.product import SLUG

PAGE_LENGTH = 50  # the service's default
FEW, MANY = "few_users", "many_users"
HOW = {Kind.NAME: "by name", Kind.EMAIL: "by e-mail address", Kind.FACTOR: "with a second factor"}

Blocks = dict[Kind, dict[str, list[float]]]  # the medians of all blocks, by kind and database


def plan(scale: Scale, _: Setup) -> Plan:
    """Return 1 for the preparation plus the number of blocks of logins and of pages."""
    return Plan(1 + 2 * BLOCKS, 1 + scale.many_users / 250_000)


def run(bench: Bench) -> None:
    """Log in sequentially, alternating between databases of both sizes; then read both pages in turn."""
    numbers = {FEW: bench.scale.few_users, MANY: bench.scale.many_users}
    key = secrets.token_urlsafe(48)
    encryption = Encryption([key.encode()], product=SLUG)
    bench.step(f"insert {numbers[MANY]:,} users")
    ids = {name: fill(bench.mongo_uri(name), number, encryption) for name, number in numbers.items()}
    services = {name: bench.service(name, name, settings={"APP_ENCRYPTION_KEY": key}) for name in numbers}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(one, bench.folder)) for name, one in services.items()}
        bench.results.rows += _rows(_logins(bench, servers, numbers), numbers)
        bench.results.rows.append(_pages(bench, servers[MANY], ids[MANY]))


def _logins(bench: Bench, servers: dict[str, Server], numbers: dict[str, int]) -> Blocks:
    """Log each chosen user in once, because the code of a second factor is accepted once."""
    random = Random(1)  # noqa: S311 - only chooses the users to log in
    blocks: Blocks = {kind: {name: [] for name in servers} for kind in Kind}
    chosen = {
        (kind, name): iter(random.sample(kind.numbers(number), bench.scale.logins))
        for kind in Kind
        for name, number in numbers.items()
    }
    with ExitStack() as stack:
        clients = {name: stack.enter_context(_client(server)) for name, server in servers.items()}
        for block in range(BLOCKS):
            bench.step(f"log in, block {block + 1} of {BLOCKS}")
            for kind in Kind:
                for name in alternate(servers, block):
                    users = (next(chosen[kind, name]) for _ in range(bench.scale.logins // BLOCKS))
                    blocks[kind][name].append(median(log_in(clients[name], kind, user) for user in users))
    return blocks


def _client(server: Server, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=headers, trust_env=False)


def _rows(blocks: Blocks, numbers: dict[str, int]) -> list[Row]:
    """Compare the databases for each kind of user, then the kinds in the large database."""
    many, by_name = f"{numbers[MANY]:,}", blocks[Kind.NAME][MANY]
    return [
        *(
            row(
                f"login latency {HOW[kind]} with {many} users / with {numbers[FEW]:,}",
                medians[MANY],
                medians[FEW],
                target=1.1,
            )
            for kind, medians in blocks.items()
        ),
        row(f"login latency by e-mail address / by name, {many} users", blocks[Kind.EMAIL][MANY], by_name, target=1.1),
        row(
            f"login latency with a second factor / without, {many} users",
            blocks[Kind.FACTOR][MANY],
            by_name,
            detail="two requests / one",
        ),
    ]


def _pages(bench: Bench, server: Server, ids: list[str]) -> Row:
    late = {"after": ids[(bench.scale.page - 1) * PAGE_LENGTH - 1]}
    blocks: dict[str, list[float]] = {"first": [], "late": []}
    with _client(server, Authorization=f"Bearer {bench.signer.sign(user_id=ids[0], admin=True)}") as client:
        for block in range(BLOCKS):
            bench.step(f"read pages, block {block + 1} of {BLOCKS}")
            for name, query in (("first", {}), ("late", late)):
                reads = range(bench.scale.pages_read // BLOCKS)
                blocks[name].append(median(_page_seconds(client, query) for _ in reads))
    return row(
        f"page {bench.scale.page:,} of `GET /users` / page 1",
        blocks["late"],
        blocks["first"],
        target=1.2,
        detail=f"{PAGE_LENGTH} users each",
    )


def _page_seconds(client: httpx.Client, query: dict[str, str]) -> float:
    response = client.get("/users", params=query)
    if len(response.raise_for_status().json()["users"]) != PAGE_LENGTH:
        raise ValueError("the page is not full")
    return seconds(response)
