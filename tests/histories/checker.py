"""Check a history: the rules for pairs of operations, and the search for an order that explains all outcomes."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.histories.linearizability import LIMIT, Search, Stuck, Undecided
from tests.histories.model import Model
from tests.histories.records import ADMINISTRATION, History, Kind
from tests.histories.rules import Rules, Violation
from tests.histories.shrinking import shrunk

SHRINKING_LIMIT = 20_000  # configurations of one attempt to show a violation with fewer operations


@dataclass(frozen=True)
class Periods:
    """The settings of the services that the checker must know, in seconds."""

    grace: float
    stale: float


@dataclass(frozen=True)
class Verdict:
    """The violations in a history. It is undecided if a search was given up."""

    violations: tuple[Violation, ...]
    undecided: bool


def check(history: History, periods: Periods) -> Verdict:
    """Return all violations of a history, each with the operations that show it."""
    violations = Rules(history, stale_seconds=periods.stale).violations()
    undecided = False
    for part in independent_parts(history):
        try:
            stuck = _search(part, periods)
        except Undecided:
            undecided = True
            continue
        if stuck:
            violations.append(_shown(part, stuck, periods))
    return Verdict(tuple(violations), undecided)


def independent_parts(history: History) -> Iterator[History]:
    """Yield the parts of a history whose operations do not depend on each other.

    Users are connected by administrators. An order explains a history if one explains each part.
    """
    groups = {name: {name} for name in (*history.users, *(one.user for one in history.operations if one.user))}
    for one in history.operations:
        if one.kind in ADMINISTRATION and groups[one.user] is not groups[one.target]:
            joined = groups[one.user] | groups[one.target]
            groups.update(dict.fromkeys(joined, joined))
    for group in {id(group): group for group in groups.values()}.values():
        yield History(
            {name: access for name, access in history.users.items() if name in group},
            tuple(one for one in history.operations if one.user in group or one.kind is Kind.SETTLE),
        )


def _search(history: History, periods: Periods, limit: int = LIMIT) -> Stuck | None:
    return Search(Model(history, grace_seconds=periods.grace), history.operations, limit=limit).run()


def _shown(history: History, stuck: Stuck, periods: Periods) -> Violation:
    def unexplained(smaller: History) -> bool:
        try:
            return _search(smaller, periods, SHRINKING_LIMIT) is not None
        except Undecided:
            return False

    return Violation("an order explains all outcomes", shrunk(history, stuck.operation, unexplained))
