"""Worker processes: how they begin, and the memory that they share.

On Linux they are forked from the main process once it has loaded everything (copy-on-write, fork(2)). Each then costs
only the memory that it writes to, and begins without the second of imports.
"""

import ctypes
import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any, Final

from sanic import Sanic
from sanic.exceptions import SanicException
from sanic.worker.loader import AppLoader

from app.metrics import files as metrics_files
from app.server import orphans

FORK: Final = "fork"


def choose_start_method(options: object) -> None:
    """Have Sanic fork the processes of the service that its command line starts with these options.

    It spawns them on other systems than Linux, whose libraries may not survive a fork.
    """
    if options is not None and sys.platform == "linux":
        Sanic.start_method = FORK


def enter() -> None:
    """Begin as a child of the main process, if this is one."""
    if multiprocessing.parent_process() is None:
        return
    # Until Sanic sets its own: without a traceback, and without the handlers of the process that has forked this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    orphans.die_with_parent(signal.SIGTERM)
    metrics_files.join()


def keep_shared() -> None:
    """Prepare the memory of this process to be shared; to be called before the first fork.

    The garbage collector writes to every object that it looks at, so each process would soon have a copy of its own: it
    leaves alone what there is now (gc.freeze). What imports have freed goes back to the kernel (malloc_trim(3)).
    """
    with suppress(AttributeError):  # only in glibc
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()


def run_apart(task: Callable[[], None]) -> None:
    """Run a task that may leave threads behind, in a forked process of its own. Exits with its code if it exits.

    Only a process with one thread can be forked safely: a lock that another thread holds would never be released
    (fork(2)). Where it is too late for that, or the system does not fork, the task runs in this process.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        task()
        return
    child = multiprocessing.get_context(FORK).Process(target=_enter_and_run, args=(task,))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(child.exitcode)


def _enter_and_run(task: Callable[[], None]) -> None:
    enter()
    task()


class Loader(AppLoader):
    """Gives a forked process the app that the main process has made; a spawned one makes its own."""

    def __init__(self, name: str, make: AppLoader) -> None:
        super().__init__()
        self._name = name
        self._make = make

    def load(self) -> Sanic[Any, Any]:
        """Return the app, in a process that begins as a worker."""
        try:
            app: Sanic[Any, Any] = Sanic.get_app(self._name)
        except SanicException:
            return self._make.load()
        enter()
        return app


class Processes:
    """Makes the processes of the service, in the place of multiprocessing's context.

    With reload, a worker is forked once, and spawned from then on: modules that have changed must be imported again.
    """

    def __init__(self) -> None:
        self._forked: set[str] = set()

    def Process(self, *, name: str, **options: Any) -> BaseProcess:  # noqa: N802 - multiprocessing's name
        """Make a process without starting it."""
        again = name in self._forked and Sanic.should_auto_reload()
        self._forked.add(name)
        context = multiprocessing.get_context("spawn") if again else multiprocessing.get_context(FORK)
        return context.Process(name=name, **options)
