"""The cost of many ended sessions in a worker's memory: requests per second, and bytes."""

import time
import tracemalloc
from collections.abc import Iterable
from contextlib import ExitStack

from app.security.revocations import Revocations
from bench import load, tokens
from bench.bench import Bench, alternate
from bench.database import fill_ended_sessions
from bench.machine import BenchFailed
from bench.progress import Plan
from bench.results import Ratio, Row
from bench.scale import Scale
from bench.servers import running
from bench.setup import Setup

WITHIN_SECONDS = 900  # the usual lifetime of an access token, for which a worker must keep an ended session
SETTLE_SECONDS = 6  # until a worker no longer rereads the end of the feed
NONE, MANY = "none_ended", "many_ended"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return 1 for the preparation plus the number of rounds."""
    return Plan(1 + scale.pair_rounds, 2 * scale.pair_burst_seconds + 2)


def run(bench: Bench) -> None:
    """Measure two workers in turn, one of them with ended sessions in memory."""
    number = bench.scale.ended_sessions
    bench.step(f"insert {number:,} ended sessions")
    ids = fill_ended_sessions(bench.mongo_uri(MANY), number, WITHIN_SECONDS)
    rotation, file = bench.rotation()
    rates: dict[str, list[float]] = {NONE: [], MANY: []}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(bench.service(name, name), bench.folder)) for name in rates}
        for server in servers.values():
            tokens.verify(server, rotation)
        for id_ in (ids[0], ids[-1]):
            if not tokens.rejected(servers[MANY], bench.signer.sign(session_id=id_)):
                raise BenchFailed("the ended sessions are not in the worker's memory")
        time.sleep(SETTLE_SECONDS)
        for round_number in range(bench.scale.pair_rounds):
            bench.step(f"ended sessions, round {round_number + 1} of {bench.scale.pair_rounds}")
            for name in alternate(servers, round_number):
                rates[name].append(load.apply(servers[name], bench.burst(file)).rate)
        more = servers[MANY].rss_bytes() - servers[NONE].rss_bytes()
    bench.results.rows.append(
        Row(
            f"`/tests/secret` with {number:,} ended sessions in memory / with none",
            Ratio.of(rates[MANY], rates[NONE]),
            target=0.97,
            detail=f"{bytes_per_entry(ids):.0f} bytes per session by tracemalloc, {more / number:.0f} by worker RSS",
        )
    )


def bytes_per_entry(ids: Iterable[str]) -> float:
    """Return the bytes that Python allocates per ended session, by tracemalloc in this process."""
    feed = [id_.encode() for id_ in ids]
    revocations = Revocations(
        None,  # type: ignore[arg-type]  # the database is not used here
        stale_seconds=10,
        lifetime_seconds=WITHIN_SECONDS,
        overlap_seconds=3,
    )
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for id_ in feed:
        revocations.add(id_.decode())  # a new string, as the database driver returns
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(feed)
