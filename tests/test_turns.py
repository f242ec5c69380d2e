"""Hashing threads are shared fairly between client networks (denial of service by password hashing)."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from app.security.throttle import TooManyAttempts
from app.security.turns import KEPT, REMEMBERED, Caller, HashingBusy, Place, Turns
from tests.interleaving import settle


def v4(number: int, *, usual: bool = False) -> Caller:
    return Caller((f"192.0.2.{number}",), usual=usual)


def v6(outer: int, inner: int) -> Caller:
    return Caller((f"2001:db8:{outer}:{inner}::/64", f"2001:db8:{outer}::/56", f"2001:db8:{outer}::/48"))


class Crowd:
    """Callers that wait for turns, and the order in which they had them."""

    def __init__(self, *, queue: int = 64, places: int = 8) -> None:
        self.turns = Turns(threads=1, queue=queue, places=places)
        self.served: list[Any] = []
        self.refused: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.work = self.turns.place(Caller())

    async def come(self, caller: Caller, name: Any) -> None:
        """Let a caller wait; it works for no time."""
        if not self.work.at_work:
            await self.work.turn()
        try:
            place = self.turns.place(caller)
        except HashingBusy:
            self.refused.append(name)
            return
        self._tasks.append(asyncio.ensure_future(self._wait(place, name)))
        await asyncio.sleep(0)

    async def _wait(self, place: Place, name: Any) -> None:
        try:
            await place.turn()
        except HashingBusy:
            self.refused.append(name)
            return
        self.served.append(name)
        place.leave()

    async def pass_by(self) -> None:
        """Let everybody have a turn."""
        self.work.leave()
        await asyncio.gather(*self._tasks)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_networks_take_turns() -> None:
    async def story() -> None:
        crowd = Crowd()
        for network in (1, 1, 1, 2, 2, 3):
            await crowd.come(v4(network), network)
        await crowd.pass_by()
        assert crowd.served == [1, 2, 3, 1, 2, 1]

    run(story())


def test_a_network_that_was_served_lately_waits_for_others() -> None:
    """Also if it comes first: a greedy network always has somebody in front of the queue."""

    async def story() -> None:
        crowd = Crowd()
        await crowd.come(v4(1), "greedy")
        await crowd.pass_by()
        crowd.work = crowd.turns.place(Caller())
        for number, name in ((1, "greedy again"), (1, "greedy again"), (2, "newcomer")):
            await crowd.come(v4(number), name)
        await crowd.pass_by()
        assert crowd.served == ["greedy", "newcomer", "greedy again", "greedy again"]

    run(story())


def test_a_network_that_was_refused_lately_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty greedy networks with more callers than places would otherwise share all turns with everybody else."""
    monkeypatch.setattr("app.security.turns.REFUSAL_SECONDS", 0)

    async def story() -> None:
        crowd = Crowd(places=1)
        await crowd.come(v4(1), "greedy")
        for _ in range(3):
            with pytest.raises(TooManyAttempts):
                await crowd.turns.take(v4(1))
        await crowd.pass_by()
        crowd.work = crowd.turns.place(Caller())
        for _ in range(3):
            await crowd.come(v4(2), "usual demand")
            await crowd.pass_by()
            crowd.work = crowd.turns.place(Caller())
        await crowd.come(v4(1), "greedy")
        await crowd.come(v4(2), "usual demand")
        await crowd.pass_by()
        assert crowd.served[-2:] == ["usual demand", "greedy"]

    run(story())


def test_ipv6_lines_take_turns_then_their_networks() -> None:
    """One line with many /64 is one line."""

    async def story() -> None:
        crowd = Crowd()
        for outer, inner in ((1, 1), (1, 1), (1, 2), (1, 3), (2, 1)):
            await crowd.come(v6(outer, inner), (outer, inner))
        await crowd.pass_by()
        assert crowd.served == [(1, 1), (2, 1), (1, 2), (1, 3), (1, 1)]

    run(story())


def test_a_network_has_a_few_places_and_the_line_twice_as_many() -> None:
    async def story() -> None:
        turns = Turns(threads=1, queue=64, places=3)
        held = [turns.place(v4(1)) for _ in range(3)]
        with pytest.raises(TooManyAttempts) as refused:
            turns.place(v4(1))
        assert refused.value.seconds == 1
        held[0].leave()
        turns.place(v4(1))
        for inner in (1, 1, 1, 2, 2, 2):
            turns.place(v6(1, inner))
        with pytest.raises(TooManyAttempts):
            turns.place(v6(1, 3))
        turns.place(v6(2, 1))

    run(story())


def test_a_place_is_left_by_its_context_once() -> None:
    async def story() -> None:
        turns = Turns(threads=1, queue=64, places=1)
        for _ in range(3):
            with turns.place(v4(1)) as place:
                place.leave()
        with turns.place(v4(1)), pytest.raises(TooManyAttempts):
            turns.place(v4(1))
        assert not turns._held

    run(story())


def test_a_full_queue_has_room_for_a_network_with_fewer_callers() -> None:
    """The last caller of the network with the most gives way; nobody does for a network that has as many."""

    async def story() -> None:
        crowd = Crowd(queue=4)
        for number, name in ((1, "first"), (1, "second"), (1, "third"), (2, "other"), (3, "newcomer"), (1, "again")):
            await crowd.come(v4(number), name)
        await settle()
        assert crowd.refused == ["third", "again"]
        await crowd.come(v4(4), "newcomer of many")
        await settle()
        assert crowd.refused == ["third", "again", "second"]
        await crowd.come(v4(5), "one too many")
        await settle()
        assert crowd.refused[-1] == "one too many"
        await crowd.pass_by()
        assert sorted(crowd.served) == ["first", "newcomer", "newcomer of many", "other"]

    run(story())


def test_usual_networks_have_a_place_besides_and_take_turns_with_all_others() -> None:
    """One for each network at a time, also while the queue and the network's own places are full."""

    async def story() -> None:
        crowd = Crowd(queue=3, places=3)
        for _ in range(3):
            await crowd.come(v4(1), "greedy")
        await crowd.come(v4(1, usual=True), "owner")
        with pytest.raises(TooManyAttempts):
            crowd.turns.place(v4(1, usual=True))
        await crowd.come(v4(2, usual=True), "another owner")
        await crowd.pass_by()
        assert crowd.served == ["owner", "greedy", "another owner", "greedy", "greedy"]
        assert not crowd.turns._kept

    run(story())


def test_usual_places_are_bounded() -> None:
    async def story() -> None:
        turns = Turns(threads=1, queue=64, places=8)
        places = [turns.place(v4(number, usual=True)) for number in range(KEPT + 1)]
        assert [place.caller.usual for place in places] == [True] * KEPT + [False]

    run(story())


def test_clients_that_look_alike_are_first_come_first_served() -> None:
    async def story() -> None:
        crowd = Crowd(queue=20)
        for number in range(20):
            await crowd.come(Caller(), number)
        await crowd.pass_by()
        assert crowd.served == list(range(20))

    run(story())


@pytest.mark.parametrize("granted", [False, True])
def test_a_caller_that_is_cancelled_gives_its_turn_to_the_next(*, granted: bool) -> None:
    async def story() -> None:
        turns = Turns(threads=1, queue=64, places=8)
        work = turns.place(v4(1))
        await work.turn()
        leaving, staying = turns.place(v4(2)), turns.place(v4(3))
        tasks = [asyncio.ensure_future(place.turn()) for place in (leaving, staying)]
        await settle()
        if granted:
            work.leave()
        tasks[0].cancel()
        await settle()
        if not granted:
            work.leave()
        await tasks[1]
        staying.leave()
        assert (turns._free, turns.waiting, turns._held) == (1, 0, {})

    run(story())


def test_the_memory_of_turns_is_bounded() -> None:
    async def story() -> None:
        turns = Turns(threads=1, queue=64, places=8)
        for number in range(2 * REMEMBERED):
            with turns.place(v6(number, number)) as place:
                await place.turn()
                place.leave()
        assert len(turns._latest) <= REMEMBERED >= len(turns._asked) / 2
        assert not turns._held

    run(story())
