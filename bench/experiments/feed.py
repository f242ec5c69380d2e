"""The cost of many other services that follow the published feed of ended sessions."""

import asyncio
from dataclasses import dataclass, field
from statistics import median, quantiles

from bench import machine, published
from bench.bench import Bench, alternate
from bench.database import fill_sessions
from bench.feed_followers import ENDS_PER_SECOND, START_SECONDS, followers, load
from bench.machine import BOTH_CORES
from bench.progress import Plan
from bench.results import Bound, Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup

WORKERS = 2


@dataclass
class Visits:
    """What was measured with a number of followers, once per round."""

    p99: list[float] = field(default_factory=list)  # of /tests/secret, in seconds
    cpu: list[float] = field(default_factory=list)  # of all processes of the service, in cores

    def __str__(self) -> str:
        return f"{1000 * median(self.p99):.2f} ms, {median(self.cpu):.0%} of a core"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of measurements."""
    return Plan(scale.follower_rounds * len(scale.followers), START_SECONDS + scale.follower_seconds)


def run(bench: Bench) -> None:
    """Measure each number of followers in turn, while sessions end. Nothing is pinned."""
    visits = {number: Visits() for number in bench.scale.followers}
    contender = bench.service("feed", workers=WORKERS, cores=BOTH_CORES, settings=published.settings())
    with machine.on_both_cores(), running(contender, bench.folder) as server:
        tokens = _tokens(bench, server)
        for round_number in range(bench.scale.follower_rounds):
            for number in alternate(visits, round_number):
                bench.step(
                    f"{number:,} followers of the feed, round {round_number + 1} of {bench.scale.follower_rounds}"
                )
                _visit(bench, server, number, tokens, visits[number])
    fewest, *more = visits
    bench.results.rows += [_row(number, visits[number], fewest, visits[fewest]) for number in more]


def _tokens(bench: Bench, server: Server) -> list[str]:
    """Return an access token that stays valid, and those of sessions to end."""
    measurements = bench.scale.follower_rounds * len(bench.scale.followers)
    number = 1 + int(measurements * bench.scale.follower_seconds * ENDS_PER_SECOND)
    signer = published.signer(server)
    return [signer.sign(session_id=id_) for id_ in fill_sessions(bench.mongo_uri("feed"), number)]


def _visit(bench: Bench, server: Server, number: int, tokens: list[str], visits: Visits) -> None:
    seconds = bench.scale.follower_seconds
    with followers(server.port, number):
        used = server.cpu_seconds()
        durations = asyncio.run(load(server.port, tokens[0], seconds, tokens))
        visits.cpu.append((server.cpu_seconds() - used) / seconds)
    visits.p99.append(quantiles(durations, n=100)[98])


def _row(number: int, visits: Visits, fewest: int, reference: Visits) -> Row:
    return Row(
        f"p99 of `/tests/secret` with {number:,} followers of the published feed / with {fewest}",
        Ratio.of(visits.p99, reference.p99),
        Bound.AT_MOST,
        detail=f"{visits} / {reference}; {ENDS_PER_SECOND} sessions end each second",
    )
