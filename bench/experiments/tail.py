"""The latency of protected requests while logins saturate the password-hashing threads."""

from statistics import median

from bench import load, tokens
from bench.bench import Bench
from bench.database import fill_users
from bench.load import Load, Outcome
from bench.machine import BOTH_CORES, SERVER_CORE
from bench.progress import Plan
from bench.results import Bound, Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup

LOGIN_CLIENTS = 32
USERS = 640  # so many that two clients never log in to the same account at the same time
PROBES, PAUSE_MILLISECONDS = 4, 10  # about 400 requests per second, a low load for the service
PLACES = {"on one core": str(SERVER_CORE), "on both cores": BOTH_CORES}
TARGETS = {"on one core": 3.0}
ROUNDS = 2
MARGIN_SECONDS = 1
DATABASE = "tail"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of rounds."""
    return Plan(ROUNDS * len(PLACES), scale.tail_seconds + 3)


def run(bench: Bench) -> None:
    """Measure the latency idle and under logins in turn, with the whole service on one core, then on both cores."""
    fill_users(bench.mongo_uri(DATABASE), USERS)
    for place, cores in PLACES.items():
        with running(bench.service(DATABASE, f"service {place}", cores=cores), bench.folder) as server:
            bench.results.rows.append(_measure(bench, server, place))


def _measure(bench: Bench, server: Server, place: str) -> Row:
    rotation, file = bench.rotation()
    tokens.verify(server, rotation)
    seconds = max(1, bench.scale.tail_seconds // 2)
    probe = Load("/tests/secret", seconds, "GET", "token", file, PROBES, PAUSE_MILLISECONDS)
    busy, idle, logins = [], [], []
    for number in range(ROUNDS):
        bench.step(f"latency under logins {place}, round {number + 1} of {ROUNDS}")
        idle.append(load.apply(server, probe).p99_milliseconds)
        measured, login = _under_logins(bench, server, probe)
        busy.append(measured.p99_milliseconds)
        logins.append(login.rate)
    return Row(
        f"p99 of `/tests/secret` while {LOGIN_CLIENTS} clients log in repeatedly / while idle, service {place}",
        Ratio.of(busy, idle),
        Bound.AT_MOST,
        TARGETS.get(place),
        f"{median(busy):.2f} ms / {median(idle):.2f} ms, {median(logins):.0f} logins/s",
    )


def _under_logins(bench: Bench, server: Server, probe: Load) -> tuple[Outcome, Outcome]:
    seconds = probe.seconds + 2 * MARGIN_SECONDS
    logins = Load("/auth", seconds, "POST", "body", bench.login_bodies(USERS), LOGIN_CLIENTS)
    with load.started(server, logins) as process:
        with_logins = load.apply(server, probe)
        return with_logins, load.outcome(server, logins, process)
