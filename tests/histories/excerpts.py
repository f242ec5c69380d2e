"""A readable excerpt of a history: the operations that show a violation."""

from collections import Counter
from collections.abc import Sequence

from tests.histories.batches import Batch
from tests.histories.checker import check
from tests.histories.records import OK, WRONG_PASSWORD, History, Injected, Kind, Operation
from tests.histories.rules import Violation
from tests.histories.services import PERIODS

ABOUT_PASSWORD = frozenset({Kind.REGISTER, Kind.LOGIN, Kind.PASSWORD, Kind.DELETE_ME})


def problems(batch: Batch, number: int, outcomes: Counter[str]) -> list[str]:
    """Return a description of each violation in a history of a batch, and count whether it is undecided."""
    history = batch.histories[number]
    verdict = check(history, PERIODS)
    outcomes["undecided"] += verdict.undecided
    where = f"History {number} of HISTORIES_SEED={batch.seed}"
    return [f"{where}\n{excerpt(one, history, batch.faults)}" for one in verdict.violations]


def excerpt(violation: Violation, history: History, faults: Sequence[Injected] = ()) -> str:
    """Return the rule that was broken, its operations in the order of their invocation, and the faults meanwhile.

    Times are seconds since the start of the history. Sessions are numbered in the order in which they were opened.
    """
    start = min(one.invoked for one in history.operations)
    names = _names(history)
    operations = sorted(violation.operations, key=lambda one: one.invoked)
    lines = [_line(one, start, names) for one in operations]
    rest = len(history.operations) - len(operations)
    end = operations[-1].ended
    during = [f"  {_times(one.began, one.ended, start)}  {one.fault}" for one in faults if one.began < end]
    return "\n".join(
        [f"Broken: {violation.rule}", *lines, f"  {rest} other operations are not needed to show it. Faults:", *during]
    )


def _names(history: History) -> dict[str, str]:
    """Return short names of sessions."""
    opening = sorted((one for one in history.operations if one.opened), key=lambda one: one.ended)
    return {one.opened: f"s{number}" for number, one in enumerate(opening, 1)}


def _line(one: Operation, start: float, names: dict[str, str]) -> str:
    where = f"#{one.number:<3} {one.client} at {one.service + 1}"
    what = f"{one.kind} {_parameters(one, names)} -> {_result(one, names)}"
    return f"  {_times(one.invoked, one.ended, start)}  {where:<18} {what}"


def _parameters(one: Operation, names: dict[str, str]) -> str:
    words = [one.user or "-"]
    if one.session:
        words.append(names.get(one.session, one.session))
    if one.kind is Kind.REFRESH:
        words.append(f"token {one.counter}")
    if one.kind in ABOUT_PASSWORD:
        words.append("a wrong password" if one.password == WRONG_PASSWORD else f"password {one.password}")
    if one.kind is Kind.PASSWORD:
        words.append(f"to {one.new_password}")
    if one.target:
        words.append(f"on {names.get(one.target, one.target)}")
    if one.access is not None:
        words.append(f"access={one.access.name.lower()}")
    if one.disabled is not None:
        words.append(f"disabled={one.disabled}")
    return " ".join(words)


def _result(one: Operation, names: dict[str, str]) -> str:
    words = [one.outcome]
    if one.opened:
        words.append(f"{names[one.opened]} as {one.scope.name.lower()}")
    if one.kind is Kind.REFRESH and one.outcome == OK:
        words.append(f"token {one.refresh_token.split('.')[1]}")
    if one.user_seen:
        words.append(f"access={one.user_seen.access.name.lower()} disabled={one.user_seen.disabled}")
    if one.kind is Kind.SESSIONS and one.outcome == OK:
        words.append(" ".join(sorted(names.get(name, "(unknown)") for name in one.sessions_seen)))
    return " ".join(words)


def _times(began: float, ended: float, start: float) -> str:
    return f"{began - start:7.3f} - {ended - start:7.3f}"
