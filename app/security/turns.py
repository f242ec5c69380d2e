"""Turns at the hashing threads, shared fairly between client networks (denial of service by password hashing)."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from app.counters import take_off
from app.security.throttle import IN_PROGRESS_SECONDS, TooManyAttempts

REFUSAL_SECONDS = 3.0  # how long a refusal takes
KEPT = 8  # places for users at networks that are usual for them, besides the queue
OUTER_SHARE = 2  # a network that includes others has the places of so many
REMEMBERED = 4000  # turns and refusals, the latest half a minute of a flood


class HashingBusy(Exception):
    """Too many passwords wait for a hashing thread."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who wants a password hashed.

    `networks` are the client's, from the inner to the outer; `usual` says whether the user is often there.

    Without networks the caller is no client, or all clients look like one; then turns are first come, first served.
    """

    networks: tuple[str, ...] = ()
    usual: bool = False


class Turns:
    """Grants `threads` turns at a time, first to the network with the fewest of the latest turns and refusals.

    So whoever asks for more than its places waits for those who do not. A network has `places` callers, preparing,
    waiting or at work; the network that includes it has twice as many. When there are `queue` callers besides those at
    work, a network with fewer callers takes the place of the last one that waits of the network with the most. A user
    at a usual network has a place besides, at most one for each network; such callers and all others take turns.
    """

    def __init__(self, *, threads: int, queue: int, places: int) -> None:
        self._free = threads
        self._most = threads + queue
        self._places = places
        self._taken: list[Place] = []  # by callers that have no usual network
        self._waiting: list[Place] = []
        self._held: Counter[str] = Counter()  # places by network
        self._kept: set[str] = set()  # the usual networks that have a place besides
        self._latest: deque[tuple[str, ...]] = deque()  # the networks of the latest turns and refusals
        self._asked: Counter[str] = Counter()  # how many of these a network had
        self._usual_first = True

    @property
    def waiting(self) -> int:
        """The number of callers that wait."""
        return len(self._waiting)

    async def take(self, caller: Caller) -> "Place":
        """Take a place, as `place` does.

        A refusal takes REFUSAL_SECONDS, and costs the database nothing: clients that repeat at once would occupy the
        database and the event loop, for which hashing has to wait. Raises TooManyAttempts or HashingBusy.
        """
        try:
            return self.place(caller)
        except (TooManyAttempts, HashingBusy):
            self._remember(caller.networks)
            await asyncio.sleep(REFUSAL_SECONDS)
            raise

    def place(self, caller: Caller) -> "Place":
        """Take a place, to be left after the work.

        Either by the end of its context or of its work. Raises TooManyAttempts or HashingBusy.
        """
        if caller.usual and len(self._kept) < KEPT and not self._kept & set(caller.networks[:1]):
            self._kept.update(caller.networks[:1])
            return Place(self, caller)
        shares = dict(zip(caller.networks[-1:] + caller.networks[:1], (OUTER_SHARE, 1), strict=False))
        if any(self._held[network] >= share * self._places for network, share in shares.items()):
            raise TooManyAttempts(IN_PROGRESS_SECONDS)
        if len(self._taken) >= self._most:
            self._displace(caller.networks[-1:])
        self._held.update(shares.keys())
        place = Place(self, replace(caller, usual=False))
        self._taken.append(place)
        return place

    def enter(self, place: "Place") -> None:
        """Let a place wait for its turn."""
        self._waiting.append(place)
        self._grant()

    def leave(self, place: "Place") -> None:
        """Leave a place, which ends its turn."""
        if place in self._waiting:
            self._waiting.remove(place)
        networks = place.caller.networks
        if place.caller.usual:
            self._kept.difference_update(networks[:1])
        else:
            self._taken.remove(place)
            for network in {*networks[:1], *networks[-1:]}:
                take_off(self._held, network)
        if place.at_work:
            self._free += 1
        self._grant()

    def _displace(self, network: tuple[str, ...]) -> None:
        """Refuse the last of the callers that wait of the network with the most, if it has more than this one.

        Raises HashingBusy.
        """
        callers = Counter(one.caller.networks[-1:] for one in self._taken)
        others = self._others()
        most = max((one.caller.networks[-1:] for one in others), key=lambda one: callers[one], default=())
        if not (network and most) or callers[most] < callers[network] + 2:
            raise HashingBusy
        last = next(one for one in reversed(others) if one.caller.networks[-1:] == most)
        last.refuse(HashingBusy())
        last.leave()

    def _others(self) -> "list[Place]":
        return [one for one in self._waiting if not one.caller.usual]

    def _grant(self) -> None:
        while self._free and self._waiting:
            place = self._next()
            self._waiting.remove(place)
            if place.start():
                self._free -= 1
                self._remember(place.caller.networks)

    def _next(self) -> "Place":
        usual, others = [one for one in self._waiting if one.caller.usual], self._others()
        lane = usual or others
        if usual and others:
            lane = usual if self._usual_first else others
            self._usual_first = not self._usual_first
        return min(lane, key=self._demand)  # of equals the first

    def _demand(self, place: "Place") -> tuple[int, int]:
        outer, inner = _ends(place.caller.networks)
        return self._asked[outer], self._asked[inner]

    def _remember(self, networks: tuple[str, ...]) -> None:
        latest = tuple(dict.fromkeys(_ends(networks)))  # a set would take three times the memory
        self._latest.append(latest)
        self._asked.update(latest)
        if len(self._latest) > REMEMBERED:
            for network in self._latest.popleft():
                take_off(self._asked, network)


def _ends(networks: tuple[str, ...]) -> tuple[str, str]:
    """Return the outermost and the innermost network."""
    return (networks[-1], networks[0]) if networks else ("", "")


class Place:
    """A caller's place: without a turn, waiting for one, or at work."""

    def __init__(self, turns: Turns, caller: Caller) -> None:
        self.caller = caller
        self.at_work = False
        self._turns = turns
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self.at_work:
            self.leave()

    async def turn(self) -> None:
        """Wait for a turn.

        From then on the work must leave the place.

        A caller that is cancelled leaves it at once. Raises HashingBusy.
        """
        self._turns.enter(self)
        try:
            await self._turn
        except BaseException:
            self.leave()
            raise

    def start(self) -> bool:
        """Begin the turn and return whether the caller still waits."""
        if self._turn.done():
            return False
        self.at_work = True
        self._turn.set_result(None)
        return True

    def refuse(self, error: Exception) -> None:
        """End the wait with an error."""
        if not self._turn.done():
            self._turn.set_exception(error)

    def leave(self) -> None:
        """Leave the place, once."""
        if not self._left:
            self._left = True
            self._turns.leave(self)
