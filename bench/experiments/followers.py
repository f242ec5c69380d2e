"""The cost of many workers that follow the ended sessions, for the primary of a replica set of three members."""

import asyncio
from statistics import median

from bench import following, machine
from bench.bench import Bench, alternate
from bench.following import OF_SERVICE, WARM_UP_SECONDS, Cost
from bench.machine import BenchFailed
from bench.progress import Plan
from bench.results import Bound, Ratio, Row
from bench.scale import Scale
from bench.setup import Setup
from tools.local_mongo import ReplicaSet

START_SECONDS = 3  # roughly, of the followers' processes


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of measurements."""
    steps = scale.follower_rounds * len(scale.followers)
    return Plan(steps, START_SECONDS + WARM_UP_SECONDS + scale.follower_seconds)


def run(bench: Bench) -> None:
    """Measure each number of followers in turn. Nothing is pinned: followers and members share both cores."""
    costs: dict[int, list[Cost]] = {number: [] for number in bench.scale.followers}
    with machine.on_both_cores(), following.replica_set() as mongo:
        for round_number in range(bench.scale.follower_rounds):
            for number in alternate(costs, round_number):
                bench.step(f"{number:,} followers, round {round_number + 1} of {bench.scale.follower_rounds}")
                costs[number].append(_measure(bench, mongo, number))
    fewest, *more = costs
    bench.results.rows += [_row(number, costs[number], fewest, costs[fewest]) for number in more]


def _measure(bench: Bench, mongo: ReplicaSet, number: int) -> Cost:
    cost = asyncio.run(following.measure(mongo, OF_SERVICE, number, bench.scale.follower_seconds))
    if cost.failures:
        raise BenchFailed(f"{cost.failures} looks of {number:,} followers failed")
    return cost


def _row(number: int, costs: list[Cost], fewest: int, references: list[Cost]) -> Row:
    """Compare the CPU time of the primary; a linear ratio would be the ratio of the numbers."""
    used, reference = ([one.cpu_percent[0] for one in measured] for measured in (costs, references))
    return Row(
        f"CPU time of the primary with {number:,} followers of the ended sessions / with {fewest}",
        Ratio.of(used, reference),
        Bound.AT_MOST,
        detail=f"{_figures(costs)} / {_figures(references)}",
    )


def _figures(costs: list[Cost]) -> str:
    commands = median(one.commands_per_second for one in costs)
    cpu = median(one.cpu_percent[0] for one in costs)
    oplog = median(one.oplog_bytes_per_second for one in costs) / 1000
    return f"{commands:,.0f} commands/s, {cpu:.0f} % of a core, oplog {oplog:.1f} KB/s"
