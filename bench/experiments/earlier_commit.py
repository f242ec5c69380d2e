"""Logins and refreshes per second, compared with the earlier commit of --compare.

The users and sessions have today's format. An earlier commit that does not understand it is not measured.
"""

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from bench import load
from bench.bench import Bench, alternate
from bench.database import fill_users
from bench.experiments.refreshes import refreshes_per_second
from bench.load import Load
from bench.machine import BenchFailed
from bench.progress import Plan
from bench.results import Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup

USERS = 640
LOGIN_CLIENTS = 8
DATABASE = "compared"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of rounds of both measurements."""
    return Plan(len(MEASUREMENTS) * scale.pair_rounds, 2 * scale.pair_burst_seconds + 1)


def run(bench: Bench) -> None:
    """Measure both services in turn."""
    with ExitStack() as stack:
        services = bench.services(DATABASE)
        for database in services:
            fill_users(bench.mongo_uri(database), USERS)
        servers = {name: stack.enter_context(running(one, bench.folder)) for name, one in services.items()}
        for what, measure in MEASUREMENTS.items():
            bench.results.rows.append(_compare(bench, servers, what, measure))


def _compare(bench: Bench, servers: dict[str, Server], what: str, measure: "Measurement") -> Row:
    """Compare today's service, which is the first, with the earlier one."""
    rates: dict[str, list[float]] = {database: [] for database in servers}
    today, earlier = rates.values()
    row = f"{what} per second / {list(servers.values())[-1].name}"
    try:
        for number in range(bench.scale.pair_rounds):
            bench.step(f"{what}, round {number + 1} of {bench.scale.pair_rounds}")
            for database in alternate(servers, number):
                rates[database].append(measure(bench, servers[database], database))
    except BenchFailed as failed:
        return Row(row, detail=f"not measured: {failed}")
    return Row(row, Ratio.of(today, earlier), detail=f"{median(today):,.0f}/s / {median(earlier):,.0f}/s")


def _logins(bench: Bench, server: Server, _: str) -> float:
    file = bench.login_bodies(USERS)
    seconds = bench.scale.pair_burst_seconds
    return load.apply(server, Load("/auth", seconds, "POST", "body", file, LOGIN_CLIENTS)).rate


Measurement = Callable[[Bench, Server, str], float]
MEASUREMENTS: dict[str, Measurement] = {"logins": _logins, "refreshes": refreshes_per_second}
