"""What many ended sessions in a worker's memory cost: requests per second, and bytes."""

import time
import tracemalloc
from collections.abc import Iterable
from contextlib import ExitStack

from app.security.revocations import Revocations
from bench import tokens
from bench.bench import Bench, in_turn
from bench.database import fill_ended_sessions
from bench.machine import BenchFailed
from bench.results import Ratio, Row
from bench.scale import Scale
from bench.servers import running

WITHIN_SECONDS = 900  # as long as an access token usually lives, so as long as a worker must remember
SETTLE_SECONDS = 6  # until a worker no longer reads the end of the feed again and again
NONE, MANY = "none_ended", "many_ended"


def steps(scale: Scale) -> int:
    """Count the preparation and the rounds."""
    return 1 + scale.pair_rounds


def run(bench: Bench) -> None:
    """Measure two workers in turn, of which one remembers ended sessions."""
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
            if not tokens.refused(servers[MANY], bench.mint.make(session_id=id_)):
                raise BenchFailed("the ended sessions are not in the worker's memory")
        time.sleep(SETTLE_SECONDS)
        for round_number in range(bench.scale.pair_rounds):
            bench.step(f"ended sessions, round {round_number + 1} of {bench.scale.pair_rounds}")
            for name in in_turn(servers, round_number):
                rates[name].append(bench.burst(servers[name], file).rate)
        more = servers[MANY].rss_bytes() - servers[NONE].rss_bytes()
    bench.results.rows.append(
        Row(
            f"`/tests/secret` with {number:,} ended sessions in memory / with none",
            Ratio.of(rates[MANY], rates[NONE]),
            target=0.97,
            detail=f"{bytes_per_entry(ids):.0f} bytes for each by tracemalloc, {more / number:.0f} by the workers' RSS",
        )
    )


def bytes_per_entry(ids: Iterable[str]) -> float:
    """Return the bytes that Python allocates for one ended session, by tracemalloc in this process."""
    feed = [id_.encode() for id_ in ids]
    revocations = Revocations(
        None,  # type: ignore[arg-type]  # nothing is asked of the database here
        stale_seconds=10,
        lifetime_seconds=WITHIN_SECONDS,
        overlap_seconds=3,
    )
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for id_ in feed:
        revocations.add(id_.decode())  # a string of its own, as one from the database is
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(feed)
