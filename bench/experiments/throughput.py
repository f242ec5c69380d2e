"""Requests per second of all servers: hello, secret, and secret with tokens sent for the first time."""

from pathlib import Path

from bench import load, tokens
from bench.bench import Bench
from bench.contenders import BLACKSHEEP, CEILING, FASTAPI, FLASK, LITESTAR, OURS, SANIC_JWT, peers
from bench.load import Load
from bench.results import Figures, Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running

TARGETS = {BLACKSHEEP: 1.2, LITESTAR: 1.8, FASTAPI: 2.5, SANIC_JWT: 2.5, FLASK: 7.0}
WITH_SERVICE_TOKENS = {OURS, CEILING}


def steps(scale: Scale) -> int:
    """Return the number of visits to a server."""
    return scale.rounds * (len(TARGETS) + len(WITH_SERVICE_TOKENS))


def run(bench: Bench) -> None:
    """Visit all servers in turn in each round. Each visit restarts the server, which runs alone on its core."""
    rotation, file = bench.rotation()
    fresh = tokens.write(bench.folder / "fresh", bench.signer.sign_many(bench.scale.fresh_tokens))
    rotations = dict.fromkeys(WITH_SERVICE_TOKENS, (rotation, file))
    contenders = [bench.service("throughput"), *peers(bench.key)]
    for number in range(bench.scale.rounds):
        for contender in contenders:
            bench.step(f"{contender.name}, round {number + 1} of {bench.scale.rounds}")
            with running(contender, bench.folder) as server:
                if contender.name not in rotations:
                    rotations[contender.name] = _own_tokens(bench, server)
                figures = bench.results.servers.setdefault(contender.name, Figures())
                _visit(bench, server, figures, *rotations[contender.name])
                if contender.name in WITH_SERVICE_TOKENS:
                    before = server.cpu_seconds()
                    outcome = _secret(bench, server, fresh)
                    figures.fresh.append(outcome.rate)
                    figures.fresh_cpu.append((server.cpu_seconds() - before) / outcome.requests * 1e6)
    bench.results.rows += _rows(bench.results.servers)


def _own_tokens(bench: Bench, server: Server) -> tuple[list[str], Path]:
    own = tokens.log_in_users(server, tokens.ROTATION)
    return own, tokens.write(bench.folder / f"tokens-of-{server.port}", own)


def _visit(bench: Bench, server: Server, figures: Figures, rotation: list[str], file: Path) -> None:
    tokens.verify(server, rotation)
    if seconds := bench.scale.warm_up_seconds:
        load.apply(server, Load("/tests/hello", seconds))
    before = server.cpu_seconds()
    hello = load.apply(server, Load("/tests/hello", bench.scale.burst_seconds))
    between = server.cpu_seconds()
    secret = _secret(bench, server, file)
    after = server.cpu_seconds()
    figures.hello.append(hello.rate)
    figures.secret.append(secret.rate)
    figures.hello_cpu.append((between - before) / hello.requests * 1e6)
    figures.secret_cpu.append((after - between) / secret.requests * 1e6)
    figures.core.append((after - before) / (hello.seconds + secret.seconds))
    figures.start_seconds.append(server.start_seconds)
    figures.rss_bytes.append(server.rss_bytes())
    figures.pss_bytes.append(server.pss_bytes())


def _secret(bench: Bench, server: Server, file: Path) -> load.Outcome:
    return load.apply(server, Load("/tests/secret", bench.scale.burst_seconds, lines="token", file=file))


def _rows(servers: dict[str, Figures]) -> list[Row]:
    ours, ceiling = servers[OURS], servers[CEILING]
    return [
        Row(
            "`/tests/hello`, production configuration / Sanic's ceiling",
            Ratio.of(ours.hello, ceiling.hello),
            target=0.90,
            detail=f"by CPU time per request: {_cpu(ceiling.hello_cpu, ours.hello_cpu)}",
        ),
        Row(
            "`/tests/secret`, 1,000 tokens in rotation, with revocation check / this service's `/tests/hello`",
            Ratio.of(ours.secret, ours.hello),
            target=0.80,
            detail=f"by CPU time per request: {_cpu(ours.hello_cpu, ours.secret_cpu)}",
        ),
        *(
            Row(
                f"`/tests/secret`, 1,000 tokens in rotation / {peer}'s `/tests/secret`",
                Ratio.of(ours.secret, servers[peer].secret),
                target=target,
                detail=f"by CPU time per request: {_cpu(servers[peer].secret_cpu, ours.secret_cpu)}",
            )
            for peer, target in TARGETS.items()
        ),
        Row(
            "`/tests/secret`, each token sent for the first time / Sanic's ceiling with one PyJWT call",
            Ratio.of(ours.fresh, ceiling.fresh),
            target=0.95,
            detail=f"by CPU time per request: {_cpu(ceiling.fresh_cpu, ours.fresh_cpu)}",
        ),
    ]


def _cpu(reference: list[float], measured: list[float]) -> str:
    return f"{Ratio.of(reference, measured).median:.2f}"
