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

from bench import machine, plot, progress, report
from bench.bench import Bench
from bench.experiments import ended_sessions, memory, refreshes, tail, throughput, users, workers
from bench.machine import BenchFailed
from bench.results import Results
from bench.scale import FULL, QUICK, Scale
from bench.tokens import TokenSigner
from tools.local_mongo import LocalMongo, MongoFailed

EXPERIMENTS: dict[str, ModuleType] = {
    "throughput": throughput,
    "ended-sessions": ended_sessions,
    "users": users,
    "refreshes": refreshes,
    "tail": tail,
    "workers": workers,
    "memory": memory,
}
INTERRUPTED = 130


def main() -> int:
    """Run the chosen experiments. Return the exit code."""
    options = _options()
    chosen = options.only or list(EXPERIMENTS)
    scale = QUICK if options.quick else FULL
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        machine.check()
        machine.pin_to_load_core()
        results = _measure(scale, chosen)
    except (BenchFailed, MongoFailed, PyMongoError, httpx.HTTPError) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return INTERRUPTED
    complete = scale is FULL and len(chosen) == len(EXPERIMENTS)
    _publish(results, scale, chosen, options.output or (Path(__file__).parent if complete else None))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes: fewer rounds, less data, no files")
    parser.add_argument(
        "--only",
        action="append",
        choices=EXPERIMENTS,
        metavar="NAME",
        help=f"run this experiment only; can be repeated; one of: {', '.join(EXPERIMENTS)}",
    )
    parser.add_argument("--output", type=Path, help="write results.md and results.svg into this folder")
    return parser.parse_args()


def _measure(scale: Scale, chosen: Sequence[str]) -> Results:
    total = sum(EXPERIMENTS[name].steps(scale) for name in chosen)
    key = secrets.token_urlsafe(48)
    with (
        progress.bar(total) as step,
        TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name,
        _mongo(Path(name) / "mongodb") as mongo,
    ):
        bench = Bench(scale, Path(name), mongo, key, TokenSigner(key), step, Results())
        for experiment in chosen:
            EXPERIMENTS[experiment].run(bench)
        return bench.results


@contextmanager
def _mongo(data: Path) -> Iterator[LocalMongo]:
    mongo = LocalMongo(data)
    try:
        mongo.start()
        yield mongo
    finally:
        mongo.stop()


def _publish(results: Results, scale: Scale, chosen: Sequence[str], folder: Path | None) -> None:
    text = report.markdown(results, scale.name, chosen)
    print(text)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text)
    written = [folder / "results.md"]
    if results.servers:
        note = f"{machine.describe()}; {scale.name} run, medians of {scale.rounds} rounds"
        (folder / "results.svg").write_text(plot.svg(results.servers, note))
        written.append(folder / "results.svg")
    print(f"bench: wrote {', '.join(map(str, written))}", file=sys.stderr)


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
