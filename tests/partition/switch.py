"""Carry packets between the devices of hosts, and delay or lose them.

python -m tests.partition.switch NUMBER=DESCRIPTOR...

Each argument is the number of a host and the descriptor of its TUN device. Each line of the input is a JSON list of all
links that are not perfect; the output is an empty line as soon as they apply. The end of the input ends the process.
"""

import heapq
import itertools
import json
import os
import random
import selectors
import sys
import time
from contextlib import suppress
from typing import NamedTuple

PACKET_BYTES = 65_536  # the maximum of IPv4
BURST = 64  # packets of one host before the others get their turn
IPV4 = 4
NUMBER_AT = 19  # the last byte of the destination in a packet, which is the number of the host (RFC 791 section 3.1)


class Link(NamedTuple):
    """What happens to packets from one host to another; a cut link loses all."""

    delay_seconds: float = 0.0
    loss: float = 0.0  # the share that is lost


class Delayed(NamedTuple):
    """A packet on a slow link."""

    due: float
    order: int  # packets that are due at the same time keep their order
    receiver: int
    packet: bytes


PERFECT = Link()


class Switch:
    """The devices, the links between them, and the packets on slow links."""

    def __init__(self, devices: dict[int, int]) -> None:
        self._devices = devices
        self._links: dict[tuple[int, int], Link] = {}
        self._delayed: list[Delayed] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Carry packets until the end of the input."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        for number, device in self._devices.items():
            os.set_blocking(device, False)
            self._selector.register(device, selectors.EVENT_READ, number)
        while True:
            for key, _ in self._selector.select(self._seconds_until_due()):
                if key.data:
                    self._carry(key.data)
                elif line := sys.stdin.readline():
                    self._set_links(line)
                else:
                    return
            self._deliver_due()

    def _set_links(self, line: str) -> None:
        self._links = {(sender, receiver): Link(*link) for sender, receiver, *link in json.loads(line)}
        print(flush=True)  # noqa: T201 - the acknowledgement

    def _carry(self, sender: int) -> None:
        for _ in range(BURST):
            try:
                packet = os.read(self._devices[sender], PACKET_BYTES)
            except BlockingIOError:
                return
            if packet[0] >> 4 == IPV4 and packet[NUMBER_AT] in self._devices:
                self._send(sender, packet[NUMBER_AT], packet)

    def _send(self, sender: int, receiver: int, packet: bytes) -> None:
        link = self._links.get((sender, receiver), PERFECT)
        if random.random() < link.loss:  # noqa: S311 - not for security
            return
        if link.delay_seconds:
            due = time.monotonic() + link.delay_seconds
            heapq.heappush(self._delayed, Delayed(due, next(self._order), receiver, packet))
        else:
            self._deliver(receiver, packet)

    def _deliver(self, receiver: int, packet: bytes) -> None:
        with suppress(BlockingIOError):  # the receiver's queue is full: the packet is lost
            os.write(self._devices[receiver], packet)

    def _deliver_due(self) -> None:
        while self._delayed and self._delayed[0].due <= time.monotonic():
            delayed = heapq.heappop(self._delayed)
            self._deliver(delayed.receiver, delayed.packet)

    def _seconds_until_due(self) -> float | None:
        return max(0.0, self._delayed[0].due - time.monotonic()) if self._delayed else None


if __name__ == "__main__":
    arguments = (argument.split("=") for argument in sys.argv[1:])
    Switch({int(number): int(descriptor) for number, descriptor in arguments}).run()
