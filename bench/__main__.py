"""The scripts/bench command: run the chosen experiments in sequence, then print and write the results."""

import argparse
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, ModuleType
from typing import NoReturn

import httpx
from pymongo.errors import PyMongoError

from bench import ROOT, checkouts, machine, plot, progress, report, setup
from bench.bench import Bench
from bench.experiments import (
    earlier_commit,
    ended_sessions,
    feed,
    followers,
    idle,
    memory,
    outbox,
    refreshes,
    sessions,
    soak,
    tail,
    throughput,
    users,
    workers,
)
from bench.machine import BenchFailed
from bench.results import Results
from bench.scale import FULL, QUICK, Scale
from bench.setup import Setup
from bench.tokens import TokenSigner
from tools.local_mongo import LocalMongo, MongoFailed

THROUGHPUT, EARLIER_COMMIT = "throughput", "earlier-commit"
EXPERIMENTS: dict[str, ModuleType] = {
    THROUGHPUT: throughput,
    "ended-sessions": ended_sessions,
    "followers": followers,
    "feed": feed,
    "users": users,
    "sessions": sessions,
    "outbox": outbox,
    "refreshes": refreshes,
    "tail": tail,
    "idle": idle,
    "workers": workers,
    "memory": memory,
    "soak": soak,
    EARLIER_COMMIT: earlier_commit,
}
USUAL = [name for name in EXPERIMENTS if name != EARLIER_COMMIT]
INTERRUPTED = 130


def main() -> int:
    """Run the chosen experiments. Return the exit code."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        machine.check()
        results = _run(options)
    except (BenchFailed, MongoFailed, PyMongoError, httpx.HTTPError) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return INTERRUPTED
    _publish(results, options)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, less data: a few minutes")
    parser.add_argument(
        "--only",
        action="append",
        choices=USUAL,
        metavar="NAME",
        help=f"run this experiment only; can be repeated; one of: {', '.join(USUAL)}",
    )
    parser.add_argument("--compare", metavar="REV", help="also run the service of an earlier commit, and compare both")
    parser.add_argument("--python", metavar="PATH", help="run the service and its Python peers with this interpreter")
    parser.add_argument("--output", type=Path, help="write results.md and results.svg into this folder")
    options = parser.parse_args()
    options.chosen = options.only or USUAL
    if options.compare and THROUGHPUT not in options.chosen:
        parser.error(f"--compare needs the experiment {THROUGHPUT}")
    if options.compare:
        options.chosen = [*options.chosen, EARLIER_COMMIT]
    options.scale = QUICK if options.quick else FULL
    return options


def _run(options: argparse.Namespace) -> Results:
    commit = checkouts.commit_of(options.compare) if options.compare else None
    with TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        prepared = setup.prepare(Path(name), python=options.python, commit=commit)
        machine.pin_to_load_core()
        return _measure(options.scale, options.chosen, prepared, Path(name))


def _measure(scale: Scale, chosen: Sequence[str], prepared: Setup, folder: Path) -> Results:
    key = secrets.token_urlsafe(48)
    results = Results(missing=list(prepared.peers.missing), setup=prepared.describe())
    plans = {name: EXPERIMENTS[name].plan(scale, prepared) for name in chosen}
    with progress.shown(plans) as shown, _mongo(folder / "mongodb") as mongo:
        bench = Bench(scale, folder, mongo, key, TokenSigner(key), prepared, shown.step, results)
        for name in chosen:
            shown.start(name)
            EXPERIMENTS[name].run(bench)
    return results


@contextmanager
def _mongo(data: Path) -> Iterator[LocalMongo]:
    mongo = LocalMongo(data)
    try:
        mongo.start()
        yield mongo
    finally:
        mongo.stop()


def _publish(results: Results, options: argparse.Namespace) -> None:
    scale: Scale = options.scale
    text = report.markdown(results, scale.name, options.chosen)
    print(text)
    folder: Path = options.output or _usual_folder(options)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text)
    written = [folder / "results.md"]
    if results.servers:
        measured = f"{results.setup['machine']}, {results.setup['Python']}"
        run = f"{scale.name} run, medians of {scale.rounds} rounds"
        (folder / "results.svg").write_text(plot.svg(results.servers, measured, run))
        written.append(folder / "results.svg")
    print(f"bench: wrote {', '.join(map(str, written))}", file=sys.stderr)


def _usual_folder(options: argparse.Namespace) -> Path:
    """Return the folder of the published results for a full run of everything, else one that git ignores."""
    complete = options.scale is FULL and options.chosen == USUAL and not options.python
    return Path(__file__).parent if complete else ROOT / "instance" / "bench"


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
