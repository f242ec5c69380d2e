"""A search for an order of operations that explains all outcomes.

The algorithm is that of Wing and Gong (1993), with the memory of visited configurations that Lowe (2017) and Porcupine
add. A step of an operation may be the next one if no other operation was completed before this one was invoked.

An operation with an unknown outcome may take effect once at any later time, or never. It is independent of operations
on other users and sessions, so it need not be tried before those: only immediately before one that it may influence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.histories.model import DONE, START, Model, Phase, State
from tests.histories.records import Operation

LIMIT = 1_000_000  # configurations, which take a minute and 1 GB of memory
ANYTHING = -1  # all bits


class Undecided(Exception):
    """The search was given up after too many configurations."""


class Configuration(NamedTuple):
    """Where a search is.

    `done` is a bit mask of operations, `next_on` one of users and sessions: the next step must be on one of these.
    """

    done: int
    started: tuple[tuple[int, Phase], ...]
    state: State
    next_on: int = ANYTHING


@dataclass(frozen=True)
class Stuck:
    """No order explains the outcomes of all operations that were completed until `operation` was."""

    operation: Operation


class Search:
    """A depth-first search over the configurations of some operations."""

    def __init__(self, model: Model, operations: Sequence[Operation], *, limit: int = LIMIT) -> None:
        self._model = model
        # Known outcomes first, in the order of their completion: usually the order in which they took effect.
        self._operations = sorted(operations, key=lambda one: (one.completed, one.invoked))
        self._on = [model.footprint(one) for one in self._operations]
        self._required = sum(one.known for one in operations)
        self._enabled = [self._invoked_before(one.completed) for one in self._operations[: self._required]]
        self._limit = limit

    def run(self) -> Stuck | None:
        """Return None if an order explains all outcomes. Raises Undecided."""
        first = Configuration(0, (), self._model.initial())
        visited, branches, furthest = {first}, [self._next(first)], 0
        while branches:
            configuration = next(branches[-1], None)
            if configuration is None:
                branches.pop()
            elif configuration not in visited:
                visited.add(configuration)
                furthest = max(furthest, self._position(configuration.done))
                if furthest == self._required:
                    return None
                if len(visited) > self._limit:
                    raise Undecided
                branches.append(self._next(configuration))
        return Stuck(self._operations[furthest]) if self._required else None

    def _next(self, configuration: Configuration) -> Iterator[Configuration]:
        """Yield the configurations after one more step, the most promising first."""
        position = self._position(configuration.done)
        candidates = self._enabled[position] & ~configuration.done if self._required else 0
        found = []
        while candidates:
            bit = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            after = self._step(configuration, bit) if self._on[bit] & configuration.next_on else None
            if after is None:
                continue
            if after.state is configuration.state:  # a read, whose outcome is right now: no later time explains more
                yield after
                return
            found.append(after)
        yield from found

    def _step(self, configuration: Configuration, bit: int) -> Configuration | None:
        """Return the configuration after the next step of an operation, or None if it cannot be the next one."""
        done, started, state, _ = configuration
        phases = dict(started)
        known = bit < self._required
        move = self._model.move(self._operations[bit], phases.pop(bit, START), state)
        if move is None:
            return None
        after = state if move.state == state else move.state
        if after is state and not known:
            return None
        if move.phase is DONE:
            done |= 1 << bit
        else:
            phases[bit] = move.phase
        return Configuration(done, tuple(sorted(phases.items())), after, ANYTHING if known else self._on[bit])

    def _position(self, done: int) -> int:
        """Return the number of operations with known outcomes that are done, until the first that is not."""
        return min((~done & (done + 1)).bit_length() - 1, self._required)

    def _invoked_before(self, time: float) -> int:
        return sum(1 << bit for bit, one in enumerate(self._operations) if one.invoked <= time)
