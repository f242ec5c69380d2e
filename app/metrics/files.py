"""The files in which the workers share their metrics.

Each worker has a slot: a number that names its files, and whose lock it holds (flock(2)). The kernel releases the lock
when the worker ends, also by SIGKILL. Its replacement takes the slot and continues the counters and histograms of its
files: no scrape misses a count or adds it twice, and there are files for as many workers as ever ran at once.
"""

import atexit
import fcntl
import os
import shutil
import struct
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "metrics-"
OWNER = "owner"  # the slot of the main process, which writes no metrics
KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemin")  # a worker has a file of each
FILE_BYTES = 65_536
WORKER_BYTES = 1_048_576  # of all its files; that of histograms grows with the routes and statuses that it has answered
NO_ENTRIES = struct.pack("i", 8)  # the header of an empty file of MmapedDict

_held: list[BinaryIO] = []  # the locks of this process
_slot: int | None = None  # of this process, if it is a worker


class AllocatedFile(MmapedDict):
    """A file of metrics whose space is allocated before it is written.

    Raises OSError if there is no space.

    prometheus_client makes sparse files and maps them; the first write to such a page kills the process (SIGBUS,
    mmap(2)) if the disk is full.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        _create(Path(filename))
        super().__init__(filename, read_mode)

    def _init_value(self, key: str) -> None:
        if self._used + 2 * len(key) + 32 > self._capacity:  # 32 bytes or less of numbers and padding
            _allocate(Path(self._fname), 2 * self._capacity)
        super()._init_value(key)


class Unshared:
    """The values of a process that is no worker, which are in its memory only; in the place of a file."""

    def read_value(self, _: str) -> tuple[float, float]:
        """Return the value and the time of a new metric."""
        return 0.0, 0.0

    def write_value(self, *_: object) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close nothing."""


def declare() -> None:
    """Let the metrics that are made from now on have values that workers can share.

    A worker that was forked has its metrics from the main process: their values are read from its files once it has
    joined.
    """
    os.environ.setdefault(FOLDER, "")  # prometheus_client makes a path of it, also where nothing is shared
    values.MmapedDict = _open  # type: ignore[attr-defined, assignment]
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _slot)


def shared() -> bool:
    """Return whether this process is a worker, whose metrics are in files."""
    return _slot is not None


def create(workers: int) -> None:
    """Make the folder for the workers of this process.

    Folders that killed processes have left are removed.

    It is removed when the process ends. Exits with a message if it cannot be made, or the disk is too full.
    """
    try:
        parent = Path(tempfile.gettempdir())
        remove_abandoned(parent)
        # It gets its name when it is locked; before, another service that starts could take it for abandoned.
        new = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=parent))
        if shutil.disk_usage(new).free < workers * WORKER_BYTES:
            new.rmdir()
            raise SystemExit(f"{parent} has no space for metrics: {workers * WORKER_BYTES} bytes for {workers} workers")
        if lock := _lock(new, OWNER):
            _held.append(lock)
        os.environ[FOLDER] = str(new.rename(new.with_name(new.name.removeprefix("new-"))))
    except OSError as error:
        raise SystemExit(f"No folder for temporary files can be used: {error}") from None
    atexit.register(remove)


def remove() -> None:
    """Remove the folder."""
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` whose processes have all ended."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), ExitStack() as held:  # another service that starts now may remove it
            if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not (folder / f"{OWNER}.lock").exists():
                continue
            locks = [_lock(folder, path.stem) for path in folder.glob("*.lock")]
            for lock in filter(None, locks):
                held.enter_context(lock)
            if all(locks):
                shutil.rmtree(folder)


def join() -> None:
    """Let this process write its metrics to the shared files, if it is a worker. Raises OSError if the disk is full.

    A second call, for a second app of the process, changes nothing.
    """
    global _slot
    if shared() or not os.environ.get("SANIC_WORKER_NAME", "").startswith("Sanic-Server"):
        return
    folder = Path(os.environ[FOLDER])
    slot = _take_slot(folder)
    for kind in KINDS:  # now, since later the disk may be full
        _create(folder / f"{kind}_{slot}.db")
    _slot = slot


def leave() -> None:
    """Empty the gauges of this worker, which ends. Counters and histograms stay."""
    for lock in _held:
        _empty_gauges(Path(lock.name))


def empty_dead_gauges() -> None:
    """Empty the gauges of workers that have ended. Counters and histograms stay."""
    folder = Path(os.environ[FOLDER])
    for path in folder.glob("*.lock"):
        if lock := _lock(folder, path.stem):
            with lock:
                _empty_gauges(path)


def _open(filename: str) -> AllocatedFile | Unshared:
    return AllocatedFile(filename) if shared() else Unshared()


def _take_slot(folder: Path) -> int:
    """Lock the lowest slot that no other process has."""
    slot = 0
    while not (lock := _lock(folder, str(slot))):
        slot += 1
    _held.append(lock)
    return slot


def _empty_gauges(lock: Path) -> None:
    for path in lock.parent.glob(f"gauge_live*_{lock.stem}.db"):
        with path.open("r+b") as file:
            file.write(NO_ENTRIES)


def _create(path: Path) -> None:
    """Make a file unless it exists. It has its size before it is read."""
    if path.exists():
        return
    new = path.with_suffix(".new")
    try:
        _allocate(new, FILE_BYTES)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _allocate(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.write(bytes(max(0, size - file.tell())))


def _lock(folder: Path, slot: str) -> BinaryIO | None:
    """Lock a slot until the file is closed or the process ends; return None if another process has it."""
    file = (folder / f"{slot}.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
