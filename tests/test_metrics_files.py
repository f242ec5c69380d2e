"""The files in which workers share their metrics, with processes that are killed."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from app.metrics import files as metrics_files
from tests.serving import CHECKOUT

MAIN = """
import os, sys
from app.metrics import files as metrics_files
metrics_files.create(workers=2)
print(os.environ[metrics_files.FOLDER], flush=True)
sys.stdin.read()
"""
WORKER = """
import asyncio, sys
from types import SimpleNamespace
from app import metrics
from app.metrics import files as metrics_files
metrics_files.join()
number, statuses = int(sys.argv[1]), int(sys.argv[2])
request = SimpleNamespace(method="GET", route=None)
async def work():
    for _ in range(number):
        metrics.events.labels("logged_in").inc()
        for status in range(200, 200 + statuses):
            metrics.requests.count(request, status, 0.003)
        await asyncio.sleep(0)
asyncio.run(work())
metrics.connections_open.set(number)
metrics.revocations_proven_at.set(number)
print("ready", flush=True)
sys.stdin.read()
"""
LOGINS = 'security_events_total{event="logged_in"}'
DURATION = "http_request_duration_seconds"

Start = Callable[..., "Program"]


class Program:
    """A Python program that runs until its standard input is closed or it is killed."""

    def __init__(self, code: str, *arguments: object, limit: int | None = None, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=CHECKOUT,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)) if limit else None,
        )
        assert self.process.stdout
        self.line = self.process.stdout.readline().strip()
        assert self.line, self.process.communicate()[1]

    def kill(self) -> None:
        """Kill the program as the kernel does when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self) -> str:
        """Let the program end, and return its errors."""
        return self.process.communicate("")[1]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts programs, which are killed after the test."""
    with ExitStack() as programs:

        def start(*arguments: object, limit: int | None = None, **variables: str) -> Program:
            program = Program(*arguments, limit=limit, **variables)  # type: ignore[arg-type]
            programs.callback(program.kill)
            return program

        yield start


@pytest.fixture
def folder(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a main process, and return its folder."""
    main = start(MAIN, TMPDIR=str(tmp_path))
    monkeypatch.setenv(metrics_files.FOLDER, main.line)
    return Path(main.line)


@pytest.fixture
def work(start: Start, folder: Path) -> Start:
    """Return a function that starts a worker, which has `number` logins and so many responses of some statuses."""

    def work(number: int, statuses: int = 1, limit: int | None = None) -> Program:
        variables = {"SANIC_WORKER_NAME": "Sanic-Server-0-0", metrics_files.FOLDER: str(folder)}
        return start(WORKER, number, statuses, limit=limit, **variables)

    return work


def samples(folder: Path) -> dict[str, float]:
    """Return the values that a worker would return, by name and labels."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return {
        sample.name
        + ("{" + ",".join(f'{name}="{text}"' for name, text in sorted(sample.labels.items())) + "}")
        * bool(sample.labels): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def cumulative(values: dict[str, float]) -> dict[str, float]:
    """Return the counters and histograms."""
    return {name: value for name, value in values.items() if name.startswith((DURATION, "security", "mongo"))}


def test_counters_and_histograms_of_killed_workers_are_continued(folder: Path, work: Start) -> None:
    """The sums stay as they are, and the files are those of the workers that ran at once."""
    work(3)
    total = 3
    for number in (5, 7, 11, 13):
        worker = work(number)
        total += number
        before = samples(folder)
        assert before[LOGINS] == total
        assert before[f'{DURATION}_count{{method="GET",route="none",status="200"}}'] == total
        assert before[f'{DURATION}_sum{{method="GET",route="none",status="200"}}'] == pytest.approx(total * 0.003)
        assert before[f'{DURATION}_bucket{{le="0.0025",method="GET",route="none",status="200"}}'] == 0
        assert before[f'{DURATION}_bucket{{le="0.005",method="GET",route="none",status="200"}}'] == total
        worker.kill()
        metrics_files.empty_dead_gauges()
        assert cumulative(samples(folder)) == cumulative(before)
        assert {path.name for path in folder.glob("*.db")} == {
            f"{kind}_{slot}.db" for kind in metrics_files.KINDS for slot in (0, 1)
        }


def test_gauges_of_workers_that_have_ended_do_not_count(folder: Path, work: Start) -> None:
    """Neither in the sum nor in the minimum; those of living workers do, also while another one is replaced."""

    def gauges() -> tuple[float | None, float | None]:
        values = samples(folder)
        return values.get("connections_open"), values.get("revocations_proven_at_seconds")

    first, second = work(3), work(5)
    assert gauges() == (8, 3)
    first.kill()
    metrics_files.empty_dead_gauges()
    assert gauges() == (5, 5)
    work(7)
    assert gauges() == (12, 5)
    second.kill()
    metrics_files.empty_dead_gauges()
    assert gauges() == (7, 7)


def test_no_counter_decreases_while_workers_are_killed_and_replaced(folder: Path, work: Start) -> None:
    """Whatever the moment of a scrape; Prometheus would take it for a restart and count everything again."""
    seen: list[float] = []
    stopping = threading.Event()

    def scrape() -> None:
        while not stopping.is_set():
            seen.append(samples(folder).get(LOGINS, 0))

    work(1)
    thread = threading.Thread(target=scrape)
    thread.start()
    for _ in range(4):
        work(2).kill()
        metrics_files.empty_dead_gauges()
    stopping.set()
    thread.join()
    assert seen == sorted(seen)
    assert samples(folder)[LOGINS] == 1 + 4 * 2


def test_the_space_of_a_file_is_allocated_before_it_is_written(folder: Path, work: Start) -> None:
    """A write to a mapping without space would kill the worker (SIGBUS)."""
    work(1, statuses=50)
    sizes = {path.name: path.stat() for path in folder.glob("*.db")}
    assert len(sizes) == len(metrics_files.KINDS)
    assert sizes["histogram_0.db"].st_size > metrics_files.FILE_BYTES, "it has grown"
    assert not [name for name, stat in sizes.items() if stat.st_blocks * 512 < stat.st_size]


def test_a_worker_serves_without_new_metrics_when_there_is_no_space(folder: Path, work: Start) -> None:
    """What it counted before is counted further; each metric that cannot be counted is one line in the log."""
    worker = work(3, statuses=60, limit=metrics_files.FILE_BYTES)
    values = samples(folder)
    assert values[LOGINS] == 3
    counted = [name for name, value in values.items() if name.startswith(f"{DURATION}_count") and value == 3]
    assert 10 < len(counted) < 60
    lines = [line for line in worker.end().splitlines() if "is not counted: File too large" in line]
    assert len(lines) + len(counted) == 60


def test_a_disk_without_space_stops_the_start_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(metrics_files, "WORKER_BYTES", 2**60)
    with pytest.raises(SystemExit, match=f"{tmp_path} has no space for metrics"):
        metrics_files.create(2)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_for_temporary_files_stops_the_start_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    with pytest.raises(SystemExit, match=r"No folder for temporary files can be used: .*No such file.*/no/such/folder"):
        metrics_files.create(2)


# Folders that are left


def test_the_folder_is_removed_at_the_end(start: Start, tmp_path: Path) -> None:
    main = start(MAIN, TMPDIR=str(tmp_path))
    assert Path(main.line).parent == tmp_path
    main.end()
    assert not list(tmp_path.iterdir())


def test_the_next_start_removes_the_folder_of_a_killed_process(start: Start, tmp_path: Path) -> None:
    """But not that of a running service."""
    killed, running = (start(MAIN, TMPDIR=str(tmp_path)) for _ in range(2))
    killed.kill()
    next_one = start(MAIN, TMPDIR=str(tmp_path))
    assert {str(path) for path in tmp_path.iterdir()} == {running.line, next_one.line}


def test_a_folder_is_kept_while_one_of_its_workers_runs(start: Start, tmp_path: Path) -> None:
    """The workers of a killed main process may still be finishing their requests."""
    main = start(MAIN, TMPDIR=str(tmp_path))
    worker = start(WORKER, 1, 1, SANIC_WORKER_NAME="Sanic-Server-0-0", **{metrics_files.FOLDER: main.line})
    main.kill()
    metrics_files.remove_abandoned(tmp_path)
    assert Path(main.line).exists()
    worker.kill()
    metrics_files.remove_abandoned(tmp_path)
    assert not Path(main.line).exists()


def test_folders_of_others_are_not_removed(tmp_path: Path) -> None:
    """By their name alone nothing can be told: neither folders, nor symbolic links in a folder that others write to."""
    (tmp_path / "metrics-of-others").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "owner.lock").touch()
    (tmp_path / "metrics-link").symlink_to(tmp_path / "elsewhere")
    metrics_files.remove_abandoned(tmp_path)
    assert (tmp_path / "metrics-of-others").exists()
    assert (tmp_path / "elsewhere" / "owner.lock").exists()


def test_a_variable_of_prometheus_client_from_outside_has_no_effect(start: Start) -> None:
    """Sanic would report a folder that does not exist as an operating system error, without its name."""
    code = "from app import metrics; print(b'revocations_known' in metrics.text())"
    assert start(code, **{metrics_files.FOLDER: "/no/such/folder"}).line == "True"
