"""The cost of many mails that wait in the outbox, and of many unused reset tokens, while the mail server hangs."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from statistics import median

import httpx
from bson import ObjectId

from app.database.collection import Document
from app.models import one_time_tokens, outbox
from app.models.outbox import LIFETIMES, PRIORITIES, Kind
from app.tokens.one_time import Purpose, digest, new_token
from bench import mail
from bench.bench import Bench, alternate
from bench.database import insert
from bench.latency import BLOCKS, row, seconds
from bench.progress import Plan
from bench.scale import Scale
from bench.servers import running
from bench.setup import Setup

FEW, MANY = "few_mails", "many_mails"
FEW_MAILS = 100  # the server hangs with some of them in both cases, so that the sender does the same work
CONFIRMED = 5  # one reset is completed for so many that are asked for
TARGET = 1.2
REQUEST, CONFIRMATION = "POST /auth/reset", "POST /auth/reset/confirmation"

Blocks = dict[str, dict[str, list[float]]]  # the medians of all blocks, by request and database


def plan(scale: Scale, _: Setup) -> Plan:
    """Return 1 for the preparation plus the number of blocks."""
    return Plan(1 + BLOCKS, 1 + scale.resets / 400)


def run(bench: Bench) -> None:
    """Ask for resets and complete resets, alternating between both databases."""
    numbers = {FEW: FEW_MAILS, MANY: bench.scale.waiting_mails}
    bench.step(f"insert {numbers[MANY]:,} mails and reset tokens")
    tokens = {name: iter(_fill(bench, name, number)) for name, number in numbers.items()}
    with ExitStack() as stack:
        server, smtp_url = stack.enter_context(mail.mail_server())
        server.hangs.set()
        settings = {**mail.SETTINGS, "APP_SMTP_URL": smtp_url}
        clients = {}
        for name in numbers:
            service = stack.enter_context(running(bench.service(name, name, settings=settings), bench.folder))
            clients[name] = stack.enter_context(httpx.Client(base_url=service.url, trust_env=False))
        stack.callback(server.hangs.clear)  # before the services stop, which wait for their deliveries
        blocks = _measure(bench, clients, tokens)
    bench.results.rows += [
        row(
            f"`{REQUEST}` with {numbers[MANY]:,} mails waiting in the outbox / with {FEW_MAILS}",
            blocks[REQUEST][MANY],
            blocks[REQUEST][FEW],
            target=TARGET,
        ),
        row(
            f"`{CONFIRMATION}` with {numbers[MANY]:,} unused reset tokens and waiting mails / with {FEW_MAILS} mails",
            blocks[CONFIRMATION][MANY],
            blocks[CONFIRMATION][FEW],
            target=TARGET,
        ),
    ]


def _measure(bench: Bench, clients: dict[str, httpx.Client], tokens: dict[str, Iterator[str]]) -> Blocks:
    blocks: Blocks = {request: {name: [] for name in clients} for request in (REQUEST, CONFIRMATION)}
    for block in range(BLOCKS):
        bench.step(f"resets, block {block + 1} of {BLOCKS}")
        for name in alternate(clients, block):
            asked = range(bench.scale.resets // BLOCKS)
            confirmed = range(bench.scale.resets // BLOCKS // CONFIRMED)
            blocks[REQUEST][name].append(median(_request(clients[name]) for _ in asked))
            blocks[CONFIRMATION][name].append(median(_confirm(clients[name], next(tokens[name])) for _ in confirmed))
    return blocks


def _request(client: httpx.Client) -> float:
    return seconds(client.post("/auth/reset", json={"email": f"{secrets.token_hex(8)}@example.com"}))


def _confirm(client: httpx.Client, token: str) -> float:
    body = {"token": token, "new_password": secrets.token_urlsafe(16)}
    return seconds(client.post("/auth/reset/confirmation", json=body))


def _fill(bench: Bench, database: str, number: int) -> list[str]:
    """Insert waiting mails, as many unused reset tokens in the large case, and tokens to use, which are returned."""
    uri = bench.mongo_uri(database)
    users = mail.add_users(uri)
    used = {new_token(): users[address] for address in list(users)[: bench.scale.resets // CONFIRMED]}
    insert(uri, "outbox", outbox.INDEXES, (_notice() for _ in range(number)))
    tokens = [_reset_token(digest(token), user_id) for token, user_id in used.items()]
    if database == MANY:
        tokens += [_reset_token(digest(new_token()), str(ObjectId())) for _ in range(number)]
    insert(uri, "one_time_tokens", one_time_tokens.INDEXES, tokens)
    return list(used)


def _notice() -> Document:
    """Return a waiting mail as Outbox.add_notice writes it. Notices come before all other mails."""
    now, user_id, address = datetime.now(UTC), str(ObjectId()), f"{secrets.token_hex(8)}@example.com"
    return {
        "_id": f"password_changed {user_id} {address}",
        "kind": Kind.NOTICE,
        "message": "password_changed",
        "user_id": user_id,
        "address": address,
        "key": address,
        "facts": {"username": user_id},
        "priority": PRIORITIES[Kind.NOTICE],
        "number": ObjectId(),
        "count": 1,
        "attempts": 0,
        "dead": None,
        "remove_at": None,
        "since": now,
        "due": now,
        "created_at": now,
        "expires_at": now + LIFETIMES[Kind.NOTICE],
    }


def _reset_token(id_: str, user_id: str) -> Document:
    """Return a token as OneTimeTokens.add writes it."""
    now = datetime.now(UTC)
    return {
        "_id": id_,
        "purpose": Purpose.RESET,
        "user_id": user_id,
        "generation": 0,
        "subject": "",
        "mail": str(ObjectId()),
        "facts": None,
        "created_at": now,
        "expires_at": now + LIFETIMES[Kind.RESET],
    }
