"""Show that no order explains a history with as few of its operations as possible (delta debugging)."""

from collections.abc import Callable
from dataclasses import replace

from tests.histories.records import CHANGES_OWN_USER, CHANGES_TARGET, OK, REUSED, UNKNOWN, History, Kind, Operation

READS = frozenset({Kind.SESSIONS, Kind.ME, Kind.SECRET, Kind.GET_USER, Kind.SETTLE, Kind.LOGIN})


def shrunk(history: History, stuck: Operation, unexplained: Callable[[History], bool]) -> tuple[Operation, ...]:
    """Return the operations whose outcomes contradict each other.

    The others are not needed: reads and refusals can be left out, and it does not matter whether the rest took effect.
    `unexplained` returns whether no order explains a history.
    """
    later = {one.number for one in history.operations if one.completed > stuck.completed}
    history = without_outcomes(history, later, until=stuck.completed)
    size = len(history.operations)
    while size:
        numbers = [one.number for one in history.operations if one.known]
        for start in range(0, len(numbers), size):
            smaller = without_outcomes(history, set(numbers[-start - size : len(numbers) - start]))
            if smaller != history and unexplained(smaller):
                history = smaller
        size = 0 if size == 1 else (size + 1) // 2
    return tuple(one for one in history.operations if one.known)


def without_outcomes(history: History, numbers: set[int], until: float = float("inf")) -> History:
    """Return the history without the outcomes of some operations, unless others need their sessions.

    Operations that were invoked later than `until` are left out.
    """
    kept: list[Operation] = []
    needed: set[str] = set()  # sessions
    for one in reversed(history.operations):
        if one.invoked > until:
            continue
        operation = _without_outcome(one) if one.number in numbers and one.opened not in needed else one
        if operation:
            kept.append(operation)
            if operation.known:
                needed |= {operation.session, operation.target} - {""}
    return _noticeable(History(history.users, tuple(reversed(kept))))


def _without_outcome(operation: Operation) -> Operation | None:
    """Return the operation without its outcome; None if it changes nothing."""
    # A password change may have taken effect although another change ended its session.
    changes = operation.outcome in (OK, UNKNOWN, REUSED) or operation.kind is Kind.PASSWORD
    if operation.kind in READS or not changes:
        return None
    return replace(operation, outcome=UNKNOWN, opened="", user_seen=None)


def _noticeable(history: History) -> History:
    """Return the history without operations of unknown outcome that no other operation can notice."""
    owner = {one.opened: one.user for one in history.operations if one.opened}
    existing = {*owner, *(one.user for one in history.operations), *history.users}
    noticed: set[str] = set()  # users and sessions
    kept: set[int] = set()
    while more := [
        one for one in history.operations if one.number not in kept and (one.known or _changed(one) in noticed)
    ]:
        kept |= {one.number for one in more}
        names = {name for one in more for name in (one.user, one.session, one.target, one.opened, *one.sessions_seen)}
        noticed |= (names | {owner[name] for name in names if name in owner}) & existing
    return History(history.users, tuple(one for one in history.operations if one.number in kept))


def _changed(operation: Operation) -> str:
    """Return the name of the user or session that an operation may change."""
    if operation.kind in CHANGES_OWN_USER | {Kind.REGISTER}:
        return operation.user
    return operation.target if operation.kind in CHANGES_TARGET | {Kind.END_SESSION} else operation.session
