"""Tests of sessions that end at both sides of a partition, each with a primary, after the sides are joined again."""

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

from pymongo.errors import PyMongoError

from app.models.sessions import END
from tests.partition.bed import Bed
from tests.partition.conftest import Note
from tests.partition.requests import Account, logout, secret
from tests.partition.trials import ACCEPTED, LIMIT_SECONDS, REJECTED, wrong_answers
from tests.processes import until

HEALINGS = int(os.environ.get("PARTITION_HEALINGS", "2"))  # set 10 for a thorough run
ENDS = 6  # at each primary
LOGOUTS = 4  # at service a

log = logging.getLogger(__name__)


@dataclass
class Healing:
    """A partition and what is left of the ends of sessions after it.

    Each primary has ends with later places in the feed than some of the other's. Those of m1 are rolled back. A worker
    that had followed m1 must then still find the earlier ones of m2.
    """

    bed: Bed
    ended: list[Account] = field(default_factory=list)  # as the majority has acknowledged
    at_m1: list[Account] = field(default_factory=list)  # ended in the branch of m1
    refused: list[Account] = field(default_factory=list)  # logged out at a, without an acknowledgement
    wrong: list[str] = field(default_factory=list)  # answers about acknowledged ends and the active session
    different: list[str] = field(default_factory=list)  # answers of workers that do not agree
    lost: int = 0  # ends of m1's branch
    accepted: int = 0  # sessions whose end was not acknowledged

    def run(self, *, step_down: bool) -> None:
        """End sessions at both sides, heal before or after m1 steps down, and compare the workers."""
        self.bed.settle()
        register = self.bed.a.register
        pairs = [(register(), register()) for _ in range(ENDS)]
        logouts = [register() for _ in range(LOGOUTS)]
        active = register()
        self.bed.isolate_with_two_primaries()
        for at_m2, at_m1 in pairs:
            self.bed.b.ask_until_success(logout(at_m2.access_token))
            self.ended.append(at_m2)
            self._end_at_m1(at_m1)
        self._log_out_at_a(logouts)
        if step_down:
            until(lambda: not self.bed.m1.is_primary(), "m1 steps down")
        healed_at = time.monotonic()
        self.bed.heal()
        self.bed.wait_until_ready()
        until(lambda: time.monotonic() > healed_at + LIMIT_SECONDS, "the end of all stale news")
        self._compare_workers(active)
        self.bed.settle()
        self._compare_workers(active)
        self._count_lost()
        log.info("%s: %s", self.summary, self.wrong + self.different)

    def _end_at_m1(self, account: Account) -> None:
        """End a session in the branch of m1, which does not wait for the majority."""
        with suppress(PyMongoError):  # it has stepped down
            query = {"_id": account.session_id, "ended": None}
            if self.bed.m1.update("sessions", query, END, acknowledged_by=1):
                self.at_m1.append(account)

    def _log_out_at_a(self, accounts: list[Account]) -> None:
        """Log out concurrently. Until all are answered, every worker follows the branch of m1 several times."""
        answers = [self.bed.a.start(logout(account.access_token)) for account in accounts]
        for account, answer in zip(accounts, answers, strict=True):
            (self.ended if answer.result().succeeded else self.refused).append(account)

    def _compare_workers(self, active: Account) -> None:
        with self.bed.each_worker() as workers:
            self.wrong += wrong_answers(workers, active, ACCEPTED)
            for account in self.ended:
                self.wrong += wrong_answers(workers, account, REJECTED)
            self.accepted = 0
            for account in (*self.at_m1, *self.refused):
                answers = {worker.name: str(worker.ask(secret(account.access_token))) for worker in workers}
                self.accepted += set(answers.values()) == {ACCEPTED}
                if len(set(answers.values())) > 1:
                    self.different.append(str(answers))

    def _count_lost(self) -> None:
        sessions = [self.bed.m1.find("sessions", {"_id": account.session_id}) for account in self.at_m1]
        self.lost = sum(1 for session in sessions if session and "ended" not in session)

    @property
    def summary(self) -> str:
        """The result in one line."""
        return (
            f"{len(self.ended)} ends acknowledged; m1 lost {self.lost} of {len(self.at_m1)} ends, "
            f"{len(self.refused)} logouts refused, {self.accepted} of these sessions accepted by every worker; "
            f"{len(self.wrong)} wrong answers, {len(self.different)} different answers"
        )


def test_acknowledged_ends_are_kept_and_others_are_forgotten_by_every_worker(bed: Bed, note: Note) -> None:
    healings = [Healing(bed) for _ in range(HEALINGS)]
    for number, healing in enumerate(healings):
        healing.run(step_down=number % 2 == 1)
        note(healing.summary)
    assert not [text for healing in healings for text in healing.wrong + healing.different]
    assert all(healing.lost for healing in healings), "m1 had no branch that was rolled back"
