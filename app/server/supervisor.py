"""Sanic's processes: replace dead workers, stop gracefully, and leave no process behind."""

# mypy: allow-untyped-calls
# (Sanic's methods, which the classes here call, have no types.)

import asyncio
import linecache
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.managers import SyncManager
from types import FrameType
from typing import Any, NoReturn

from sanic import Sanic
from sanic.log import error_logger, logger
from sanic.mixins import startup
from sanic.worker.constants import ProcessState
from sanic.worker.manager import MonitorCycle, WorkerManager
from sanic.worker.process import WorkerProcess
from sanic.worker.reloader import Reloader

from app.metrics import files as metrics_files
from app.server import descriptors, orphans, workers
from app.server.connections import Protocol
from app.server.startup import check_free, check_temporary_folder

RELOADER = "Sanic-Reloader-0"  # the name of the process that watches for changed files
SAME_SIGNAL_SECONDS = 0.5
POLL_SECONDS = 0.05
BACKLOG = 1024  # connections that wait to be accepted; with Sanic's 100 the kernel delays more clients by a second
REPLACE_SECONDS = 1  # between two replacements of a worker, or one that cannot start would use up the machine
FIRST = 1_000_000  # the priority of a listener that runs before those of extensions
# All stores and services are made at the start, before anything is served. In debug mode asyncio warns of callbacks
# that take longer than a limit, which is this one until then.
START_SECONDS = 2
CLOSING_SECONDS = 5  # to close the database's connections and leave


def supervise(
    app: Sanic[Any, Any],
    *,
    drain_seconds: float,
    arrival_seconds: float,
    connections: int,
    check: Callable[[], None],
) -> None:
    """Have Sanic use the classes of this toolkit.

    Sanic looks the classes up by name where it starts; there is no other extension point. `check` runs first and exits
    with a reason if the service must not start. `connections` is the limit of each worker.
    """
    startup.WorkerManager = Manager  # type: ignore[attr-defined, assignment]
    startup.Manager = partial(hold_states, app, connections, check)  # type: ignore[attr-defined]
    startup.HttpProtocol = Protocol  # type: ignore[attr-defined]
    app.config.REQUEST_ARRIVAL_SECONDS = arrival_seconds
    Manager.stop_seconds = drain_seconds + app.config.GRACEFUL_SHUTDOWN_TIMEOUT + CLOSING_SECONDS

    keep_alive = app.config.KEEP_ALIVE
    slow_seconds = 0.0

    async def reset(app: Sanic[Any, Any]) -> None:
        """Undo an earlier stop: tests start and stop one app several times."""
        nonlocal slow_seconds
        app.ctx.draining = False
        app.config.KEEP_ALIVE = keep_alive
        loop = asyncio.get_running_loop()
        slow_seconds, loop.slow_callback_duration = loop.slow_callback_duration, START_SECONDS

    app.register_listener(reset, "before_server_start", priority=FIRST)

    @app.after_server_start
    async def started(_: Sanic[Any, Any]) -> None:
        asyncio.get_running_loop().slow_callback_duration = slow_seconds
        linecache.clearcache()  # Sanic and the database's driver have read 1.5 MB of source that nobody needs again

    @app.after_server_stop
    async def stopped(_: Sanic[Any, Any]) -> None:
        metrics_files.leave()

    @app.before_server_stop
    async def drain(app: Sanic[Any, Any]) -> None:
        app.ctx.draining = True
        app.config.KEEP_ALIVE = False  # further responses ask clients to open their next connection elsewhere
        parent = multiprocessing.parent_process()
        if parent:
            for number in (signal.SIGINT, signal.SIGTERM):  # Sanic has removed its handlers; a second signal would kill
                signal.signal(number, signal.SIG_IGN)
        if parent is None or os.getppid() == parent.pid:  # an orphan would block the port of the next start
            await asyncio.sleep(drain_seconds)


def hold_states(app: Sanic[Any, Any], connections: int, check: Callable[[], None]) -> SyncManager:
    """Start the process that holds the workers' states.

    Only once the service can listen and serve.

    Exits with the reason if it cannot: later, Sanic would also print a traceback.
    """
    settings = app.state.server_info[0].settings
    settings["backlog"] = BACKLOG
    if not settings["sock"] and not settings["unix"]:
        check_free(settings["host"], settings["port"])
    check_temporary_folder()
    workers.keep_shared()
    workers.run_apart(check)
    descriptors.prepare(connections)
    metrics_files.create(app.state.workers)
    states = SyncManager(ctx=multiprocessing.get_context())
    states.start(orphans.end_only_with_parent)
    return states


class Manager(WorkerManager):
    """Sanic's manager of worker processes, extended."""

    when_started: Callable[[], None] | None = None  # called when every worker serves
    stop_seconds = math.inf

    def __init__(
        self, number: int, serve: Callable[..., Any], settings: dict[str, Any], context: Any, *others: Any
    ) -> None:
        if multiprocessing.get_start_method() == workers.FORK:
            settings["app_loader"] = workers.Loader(settings["app_name"], settings["app_loader"])
            context = workers.Processes()
        super().__init__(number, serve, settings, context, *others)
        self._signalled_at = -math.inf
        self._stopping = False
        self._replaced: dict[str, float] = {}

    def manage(self, name: str, func: Callable[..., Any], *others: Any, **options: Any) -> Any:
        """Add a process. Sanic's reloader loads the app as workers do."""
        if isinstance(func, Reloader):
            func.app_loader = self._server_settings["app_loader"]
        return super().manage(name, func, *others, **options)

    def monitor(self) -> None:
        """Monitor the workers.

        If the process that holds their states has died, let all finish and exit.
        """
        try:
            super().monitor()
        except (EOFError, ConnectionError):
            error_logger.error("the process that holds the workers' states has died: stopping")
            self.shutdown()
            self.join()
            raise SystemExit(1) from None

    def wait_for_ack(self) -> None:
        """Wait until every worker serves."""
        super().wait_for_ack()
        if Manager.when_started:
            Manager.when_started()

    def shutdown_signal(self, _: int, __: FrameType | None) -> None:
        """Stop gracefully, or immediately at a second signal.

        Only sets a flag: Sanic would ask another process here, possibly in the middle of another request to it.
        """
        now, before = time.monotonic(), self._signalled_at
        self._signalled_at = now
        if now - before < SAME_SIGNAL_SECONDS:
            return  # sent to the process group and also passed on, which Sanic would take for a second signal
        if self._stopping:
            self.kill()
        self._stopping = True

    def join(self) -> None:
        """Close the listening socket and wait for all processes.

        The workers also hold the socket. The wait has a limit; Sanic would wait for ten seconds twice, and then kill
        the workers.
        """
        if listening := self._server_settings["sock"]:  # with --unix, each worker makes its own
            listening.close()
        deadline = time.monotonic() + self.stop_seconds
        while any(process.is_alive() for process in self.processes):
            if time.monotonic() > deadline:
                error_logger.error("some processes have not ended within %s s and are killed", self.stop_seconds)
                self.kill()
            time.sleep(POLL_SECONDS)

    def kill(self) -> NoReturn:
        """Kill the workers and exit.

        Sanic would kill the whole process group, which is also the caller's.
        """
        for process in self.processes:
            if process.is_alive():  # or its process id may have been reused
                self._kill(process)
        metrics_files.remove()
        os._exit(1)

    def _kill(self, process: WorkerProcess) -> None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)

    def _all_workers_ack(self) -> bool:
        return (
            self._stopping or super()._all_workers_ack()
        )  # Sanic would wait indefinitely for workers that it has ended

    def _poll_monitor(self) -> MonitorCycle | None:
        if not self._stopping:
            return super()._poll_monitor()
        logger.info("stopping")
        super()._sync_states()
        # Signalled while they start, workers would print a traceback or miss the signal. The reloader never reports
        # that it has started, and has nothing to finish.
        starting = [one for one in self.transient_processes if one.state is not ProcessState.ACKED]
        reloader = [one for one in self.durable_processes if one.name == RELOADER]
        for process in (*starting, *reloader):
            self._kill(process)
        self.shutdown()
        return MonitorCycle.BREAK

    def _sync_states(self) -> None:
        super()._sync_states()
        for process in self.transient_processes:
            if process.pid and not process.is_alive() and not self._stopping:
                self._replace(process)

    def _replace(self, process: WorkerProcess) -> None:
        now = time.monotonic()
        if now - self._replaced.get(process.name, -math.inf) < REPLACE_SECONDS:
            return
        self._replaced[process.name] = now
        error_logger.error(
            "%s [%s] ended with exit code %s and is replaced", process.name, process.pid, process.exitcode
        )
        self.worker_state.setdefault(process.name, {"server": True})  # a worker that ends by itself removes it
        metrics_files.empty_dead_gauges()
        process.restart()
