"""Seeded random faults: fail points of the database, elections, frozen services and killed workers."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from tests.conftest import Document
from tests.histories.records import Injected
from tests.histories.services import MONGO_SECONDS, SERVICES, System

FAULTS = 12  # planned for a batch, which usually ends earlier
PAUSE_SECONDS = (0.2, 0.5, 1.0)
# InterruptedDueToReplStateChange, PrimarySteppedDown, ShutdownInProgress; and Interrupted, which drivers do not retry.
ERROR_CODES = (11602, 189, 91, 11601)
# WriteConcernFailed and UnsatisfiableWriteConcern. With the first codes above the driver would wait for news of another
# primary, which take ten seconds because nothing has really changed.
WRITE_CONCERN_CODES = (64, 100)
COMMANDS = (
    ["findAndModify"],
    ["update"],
    ["commitTransaction"],
    ["find"],
    ["findAndModify", "update"],
    ["insert", "update", "findAndModify", "commitTransaction", "find"],
)


@dataclass(frozen=True)
class FailPoint:
    """Commands of the primary that fail or block, so many times or for so many seconds."""

    data: Document
    times: int | None
    seconds: float

    def inject(self, system: System, wait: Callable[[float], object]) -> None:
        """Set the fail point, wait, and remove it."""
        primary = system.primary()
        if primary is None:
            return
        mode: Document | str = "alwaysOn" if self.times is None else {"times": self.times}
        primary.admin("configureFailPoint", "failCommand", mode=mode, data=self.data)
        wait(self.seconds)
        primary.admin("configureFailPoint", "failCommand", mode="off")


@dataclass(frozen=True)
class Election:
    """A new primary."""

    step_down: bool

    def inject(self, system: System, wait: Callable[[float], object]) -> None:
        """Let the primary step down, or another member step up, and wait until a primary is elected."""
        primary = system.primary()
        if primary is None:
            return
        if self.step_down:
            primary.admin("replSetStepDown", 2, secondaryCatchUpPeriodSecs=1, force=True)
        else:
            next(member for member in system.members if member is not primary).admin("replSetStepUp")
        while system.primary() is None:
            wait(0.02)


@dataclass(frozen=True)
class Freeze:
    """A service whose worker is frozen: its connections stay open, but it does not respond."""

    service: int
    seconds: float

    def inject(self, system: System, wait: Callable[[float], object]) -> None:
        """Freeze the worker, wait, and resume it."""
        service = system.services[self.service]
        service.send(signal.SIGSTOP)
        try:
            wait(self.seconds)
        finally:
            service.send(signal.SIGCONT)


@dataclass(frozen=True)
class Kill:
    """A worker that is killed. The main process replaces it."""

    service: int

    def inject(self, system: System, _: Callable[[float], object]) -> None:
        """Kill the worker."""
        system.services[self.service].send(signal.SIGKILL)


Fault = FailPoint | Election | Freeze | Kill


@contextmanager
def injected(system: System, random: Random) -> Iterator[list[Injected]]:
    """Inject random faults during the context, one after the other. Yields the list of those that were injected."""
    plan = [(random.choice(PAUSE_SECONDS), fault(random)) for _ in range(FAULTS)]
    stopping, done = threading.Event(), list[Injected]()

    def inject() -> None:
        for pause, one in plan:
            if stopping.wait(pause):
                return
            began = time.monotonic()
            one.inject(system, stopping.wait)
            done.append(Injected(str(one), began, time.monotonic()))

    thread = threading.Thread(target=inject)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join()


def fault(random: Random) -> Fault:
    """Return a random fault."""
    kind, service = random.random(), random.randrange(SERVICES)
    if kind < 0.72:
        return fail_point(random)
    if kind < 0.87:
        return Freeze(service, random.uniform(0.3, 2.0))
    if kind < 0.96:
        return Election(step_down=random.random() < 0.25)
    return Kill(service)


def fail_point(random: Random) -> FailPoint:
    """Return a random fail point."""
    effects: list[Document] = [
        {"errorCode": random.choice(ERROR_CODES)},
        {"closeConnection": True},
        {"blockConnection": True, "blockTimeMS": random.randint(100, 800)},
        {"writeConcernError": {"code": random.choice(WRITE_CONCERN_CODES), "errmsg": "injected"}},
    ]
    times = random.choice((None, 1, 3, 10))
    longest = MONGO_SECONDS * 1.5 if random.random() < 0.25 else MONGO_SECONDS * 0.6
    seconds = random.uniform(MONGO_SECONDS * 0.1, longest)
    return FailPoint({"failCommands": random.choice(COMMANDS), **random.choice(effects)}, times, seconds)
