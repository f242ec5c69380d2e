"""Refreshes per second, compared with their conditional updates alone."""

import json
import os
import subprocess
from functools import partial
from statistics import median

from bench import ROOT, load, tokens
from bench.bench import Bench
from bench.database import fill_sessions
from bench.load import Load
from bench.machine import SERVER_CORE, BenchFailed
from bench.progress import Plan
from bench.results import Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup
from tools.processes import die_with_parent

SESSIONS = 1000  # refreshed in turn; each response contains the token for the next refresh
CLIENTS = 64
DATABASE = "refreshes"


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the number of rounds."""
    return Plan(scale.pair_rounds, 2 * scale.pair_burst_seconds + 2)


def run(bench: Bench) -> None:
    """Measure in turn, on the server's core, the service over HTTP and the update in a separate script."""
    refreshes, updates = [], []
    with running(bench.service(DATABASE), bench.folder) as server:
        for number in range(bench.scale.pair_rounds):
            bench.step(f"refreshes, round {number + 1} of {bench.scale.pair_rounds}")
            refreshes.append(refreshes_per_second(bench, server, DATABASE))
            updates.append(_updates(bench))
    bench.results.rows.append(
        Row(
            "refreshes per second over HTTP / conditional updates per second through Motor alone",
            Ratio.of(refreshes, updates),
            target=0.6,
            detail=f"{median(refreshes):,.0f}/s / {median(updates):,.0f}/s, {CLIENTS} at a time",
        )
    )


def refreshes_per_second(bench: Bench, server: Server, database: str) -> float:
    """Refresh new sessions in the server's database."""
    ids = fill_sessions(bench.mongo_uri(database), SESSIONS)
    file = tokens.write(bench.folder / "refresh_tokens", bench.refresh_tokens(ids))
    seconds = bench.scale.pair_burst_seconds
    return load.apply(server, Load("/auth/refresh", seconds, "POST", "refresh", file, CLIENTS)).rate


def _updates(bench: Bench) -> float:
    uri = bench.mongo_uri(DATABASE)
    file = tokens.write(bench.folder / "session_ids", fill_sessions(uri, SESSIONS))
    completed = subprocess.run(
        [*_python(bench, "bench.bare_update"), str(file), str(bench.scale.pair_burst_seconds), str(CLIENTS)],
        cwd=ROOT,
        env={**os.environ, "APP_MONGO_URI": uri},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(die_with_parent, os.getpid()),
    )
    if completed.returncode:
        raise BenchFailed(f"the bare update failed: {completed.stderr.strip().splitlines()[-1]}")
    result = json.loads(completed.stdout)
    return float(result["updates"] / result["seconds"])


def _python(bench: Bench, module: str) -> list[str]:
    python = bench.setup.today.environment / "bin" / "python"
    return ["taskset", "-c", str(SERVER_CORE), str(python), "-m", module]
