"""One worker compared with two, with the workers and the load on the same two cores."""

from statistics import median

from bench import load, tokens
from bench.bench import Bench
from bench.load import Load
from bench.machine import BOTH_CORES
from bench.progress import Plan
from bench.results import Ratio, Row
from bench.scale import Scale
from bench.servers import running
from bench.setup import Setup

ROUNDS = {"full": 3, "quick": 1}


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of visits to a server."""
    return Plan(2 * ROUNDS[scale.name], scale.pair_burst_seconds + 4)


def run(bench: Bench) -> None:
    """Measure both in turn. Nothing is pinned: the kernel schedules wrk, MongoDB and the workers on both cores."""
    rotation, file = bench.rotation()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(ROUNDS[bench.scale.name]):
        for workers in rates:
            bench.step(f"workers: {workers}, round {number + 1} of {ROUNDS[bench.scale.name]}")
            contender = bench.service("workers", f"{workers} workers", workers=workers, cores=BOTH_CORES)
            with running(contender, bench.folder) as server:
                tokens.verify(server, rotation)
                burst = Load(
                    "/tests/secret", bench.scale.pair_burst_seconds, lines="token", file=file, cores=BOTH_CORES
                )
                rates[workers].append(load.apply(server, burst).rate)
    bench.results.rows.append(
        Row(
            "`/tests/secret` with two workers on two cores / with one worker, the load on the same two cores",
            Ratio.of(rates[2], rates[1]),
            detail=f"{median(rates[2]):,.0f}/s / {median(rates[1]):,.0f}/s; nothing pinned, wrk on both cores",
        )
    )
