"""Trials: how long an ended session is accepted during a fault, and whether it is accepted after healing."""

import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from app.models.sessions import END
from config import Config
from tests.conftest import Document
from tests.partition.bed import Bed
from tests.partition.faults import Fault
from tests.partition.observe import Role, Server, Watch
from tests.partition.requests import Account
from tests.processes import TIMEOUT_SECONDS, until

TRIALS = int(os.environ.get("PARTITION_TRIALS", "1"))  # of each fault; set 5 for a thorough run
# The age of its news at which a worker rejects all tokens, and a second for requests and their measurement.
LIMIT_SECONDS = Config.model_fields["REVOCATION_STALE_SECONDS"].default + 1
AFTERWARDS_SECONDS = 3.0  # a fault lasts so much longer than the limit
WATCHED_SECONDS = 60.0  # at most, if the session is still accepted then
ATTEMPT_MILLISECONDS = 1500
RETRY_SECONDS = 0.05
ACCEPTED, REJECTED = "200", "401 session_ended"

log = logging.getLogger(__name__)


@dataclass
class Trial:
    """A session that ends during a fault."""

    bed: Bed
    fault: Fault
    watched: Callable[[Bed], AbstractContextManager[Sequence[Server]]] = Bed.each_worker
    seconds: float | None = None  # from the acknowledged end to the last acceptance; None without an acknowledged end
    wrong: list[str] = field(default_factory=list)  # what servers answered wrong after healing

    def run(self) -> None:
        """End the session at the larger side, watch what every server answers, and heal."""
        self.bed.settle()
        ended, active = self.bed.a.register(), self.bed.a.register()
        with self.watched(self.bed) as servers:
            self._watch(servers, ended)
            if self.seconds is not None:
                self.wrong += wrong_answers(servers, ended, REJECTED)
            self.wrong += wrong_answers(servers, active, ACCEPTED)

    def _watch(self, servers: Sequence[Server], account: Account) -> None:
        with ExitStack() as observers:
            watches = [observers.enter_context(Watch(server, account.access_token)) for server in servers]
            roles = [observers.enter_context(Role(member)) for member in self.bed.members]
            until(lambda: all(watch.latest().seen == ACCEPTED for watch in watches), "200 from every server")
            begin = time.monotonic()
            ended_at = self._end_during_fault(account, watches)
            healed_at = time.monotonic()
            self.bed.heal()
            self.bed.wait_until_ready()
        if ended_at:
            self.seconds = max(watch.last(ACCEPTED, before=healed_at) for watch in watches) - ended_at
            late = max(healed_at, ended_at + LIMIT_SECONDS)
            self.wrong += [f"{watch.name}: 200 after healing" for watch in watches if watch.last(ACCEPTED) > late]
        times = f"acknowledged at {(ended_at or math.nan) - begin:.2f}, healed at {healed_at - begin:.2f}"
        stories = "\n  ".join(observer.story(begin) for observer in (*watches, *roles))
        log.info("%s: %s s; %s\n  %s", self.fault.name, self.seconds, times, stories)

    def _end_during_fault(self, account: Account, watches: Sequence[Watch]) -> float | None:
        """Return when the end of the session was acknowledged. The fault lasts until no server accepts the session."""
        self.fault.begin(self.bed)
        ended_at = end_session(self.bed, account)
        if ended_at:
            self.fault.change(self.bed)
            wait_for_rejections(watches)
        return ended_at


def end_session(bed: Bed, account: Account) -> float | None:
    """End a session until the majority acknowledges it, and return when; None if that takes too long.

    From the machine of b, but without its service, which may be stale: any other service could do the same.
    """

    def end() -> float | None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        milliseconds = ATTEMPT_MILLISECONDS
        with MongoClient[Document](
            bed.mongo_uri, timeoutMS=milliseconds, serverSelectionTimeoutMS=milliseconds
        ) as client:
            while time.monotonic() < deadline:
                with suppress(PyMongoError):
                    sessions = client.get_default_database().sessions
                    sessions.update_one({"_id": account.session_id, "ended": None}, END)
                    return time.monotonic()
                time.sleep(RETRY_SECONDS)
        return None

    return bed.b.host.run(end)


def wait_for_rejections(watches: Sequence[Watch]) -> None:
    """Wait until the limit has passed and no server has accepted the session for a while."""
    begin = time.monotonic()

    def rejected() -> bool:
        now = time.monotonic()
        accepted_at = max(watch.last(ACCEPTED) for watch in watches)
        return now > begin + WATCHED_SECONDS or now > max(begin + LIMIT_SECONDS, accepted_at) + AFTERWARDS_SECONDS

    until(rejected, "the end of a fault")


def wrong_answers(servers: Sequence[Server], account: Account, expected: str) -> list[str]:
    """Return the servers that do not give the expected answer to an access token."""
    answers = {server.name: str(server.ask(server.protected(account.access_token))) for server in servers}
    return [f"{name}: {answer}, not {expected}" for name, answer in answers.items() if answer != expected]


def summary(trials: Sequence[Trial]) -> str:
    """Return the results in one line."""
    seconds = [trial.seconds for trial in trials if trial.seconds is not None]
    figures = (min(seconds), statistics.median(seconds), max(seconds)) if seconds else ()
    return (
        f"accepted for {' / '.join(f'{figure:.2f}' for figure in figures)} s (min / median / max); "
        f"{len(seconds)} of {len(trials)} ends acknowledged; "
        f"wrong answers after healing in {sum(bool(trial.wrong) for trial in trials)} trials"
    )


def assert_rejected_in_time(trials: Sequence[Trial], note: Callable[[str], None]) -> None:
    """Run the trials of a fault and fail if a session was accepted for too long."""
    try:
        for trial in trials:
            trial.run()
    finally:
        note(summary(trials))
    assert not [text for trial in trials for text in trial.wrong]
    seconds = [trial.seconds for trial in trials if trial.seconds is not None]
    assert seconds, "no end of a session was acknowledged"
    assert max(seconds) <= LIMIT_SECONDS
