"""Requests per second of all servers: hello, secret, and secret with tokens sent for the first time."""

from pathlib import Path

from bench import load, tokens
from bench.bench import Bench
from bench.checkouts import OURS
from bench.contenders import BLACKSHEEP, CEILING, FASTAPI, FLASK, LITESTAR, SANIC_JWT, peers
from bench.load import Load
from bench.progress import Plan
from bench.results import Figures, Row
from bench.runtimes import FASTIFY, FASTIFY_CACHED, GO
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup

TARGETS = {BLACKSHEEP: 1.2, LITESTAR: 1.8, FASTAPI: 2.5, SANIC_JWT: 2.5, FLASK: 7.0, FASTIFY: 1.0, FASTIFY_CACHED: 0.8}
PEERS = (*TARGETS, GO)
DATABASE = "throughput"
START_SECONDS = 4  # roughly, with the sequential requests before the load


def plan(scale: Scale, setup: Setup) -> Plan:
    """Return the number of visits to a server."""
    servers = 1 + bool(setup.earlier) + len(peers("", setup.peers))
    return Plan(scale.rounds * servers, 2 * scale.warm_up_seconds + 2 * scale.burst_seconds + START_SECONDS)


def run(bench: Bench) -> None:
    """Visit all servers in turn in each round. Each visit restarts the server, which runs alone on its core."""
    rotation = bench.rotation()
    fresh = tokens.write(bench.folder / "fresh", bench.signer.sign_many(bench.scale.fresh_tokens))
    rotations: dict[str, tuple[list[str], Path]] = {}
    contenders = [*bench.services(DATABASE).values(), *peers(bench.key, bench.setup.peers)]
    for number in range(bench.scale.rounds):
        for contender in contenders:
            bench.step(f"{contender.name}, round {number + 1} of {bench.scale.rounds}")
            with running(contender, bench.folder) as server:
                if contender.name not in rotations:
                    rotations[contender.name] = rotation if contender.accepts_service_tokens else _own(bench, server)
                figures = bench.results.servers.setdefault(contender.name, Figures())
                _visit(bench, server, figures, *rotations[contender.name])
                if contender.accepts_service_tokens:
                    load.record(server, _secret(bench.scale.burst_seconds, fresh), figures.fresh)
    bench.results.rows += _rows(bench.results.servers)
    if earlier := bench.setup.earlier:
        bench.results.rows += _earlier_rows(bench.results.servers, earlier.name)


def _own(bench: Bench, server: Server) -> tuple[list[str], Path]:
    """Return 1,000 tokens that a peer issued, and the file that contains them."""
    own = tokens.log_in_users(server, tokens.ROTATION)
    return own, tokens.write(bench.folder / f"tokens-of-{server.port}", own)


def _visit(bench: Bench, server: Server, figures: Figures, rotation: list[str], file: Path) -> None:
    tokens.verify(server, rotation)
    if seconds := bench.scale.warm_up_seconds:
        load.apply(server, _hello(seconds))
        load.apply(server, _secret(seconds, file))
    seconds = bench.scale.burst_seconds
    figures.core.append(load.record(server, _hello(seconds), figures.hello))
    figures.core.append(load.record(server, _secret(seconds, file), figures.secret))
    figures.start_seconds.append(server.start_seconds)
    figures.rss_bytes.append(server.rss_bytes())
    figures.pss_bytes.append(server.pss_bytes())


def _hello(seconds: int) -> Load:
    return Load("/tests/hello", seconds)


def _secret(seconds: int, file: Path) -> Load:
    return Load("/tests/secret", seconds, lines="token", file=file)


def _rows(servers: dict[str, Figures]) -> list[Row]:
    ours, ceiling = servers[OURS], servers[CEILING]
    return [
        Row.of_rates("`/tests/hello`, production configuration / Sanic's ceiling", ours.hello, ceiling.hello, 0.90),
        Row.of_rates(
            "`/tests/secret`, 1,000 tokens in rotation, with revocation check / this service's `/tests/hello`",
            ours.secret,
            ours.hello,
            0.80,
        ),
        *(
            Row.of_rates(
                f"`/tests/secret`, 1,000 tokens in rotation / {peer}'s `/tests/secret`",
                ours.secret,
                servers[peer].secret,
                TARGETS.get(peer),
            )
            for peer in PEERS
            if peer in servers
        ),
        Row.of_rates(
            "`/tests/secret`, each token sent for the first time / Sanic's ceiling with one PyJWT call",
            ours.fresh,
            ceiling.fresh,
            0.95,
        ),
    ]


def _earlier_rows(servers: dict[str, Figures], name: str) -> list[Row]:
    today, earlier = servers[OURS], servers[name]
    compared = {
        "`/tests/hello`": (today.hello, earlier.hello),
        "`/tests/secret`, 1,000 tokens in rotation": (today.secret, earlier.secret),
        "`/tests/secret`, each token sent for the first time": (today.fresh, earlier.fresh),
    }
    return [Row.of_rates(f"{what} / {name}", *requests) for what, requests in compared.items()]
