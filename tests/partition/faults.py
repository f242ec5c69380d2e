"""What happens to the network and the machines while a session ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.partition.bed import Bed

OLD_NEWS_SECONDS = 6.0
SLOW_LINK_SECONDS = 2.0  # one way
SLOW_MEMBER_SECONDS = 1.0
LOST_SHARE = 0.3
PAUSE_SECONDS = 15.0  # after the end of the session
FLAPS = 4
FLAP_SECONDS = 3.0
MOMENT_SECONDS = 0.3


def nothing(_: Bed) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Fault:
    """A fault that begins before the session ends, and may change after its end was acknowledged."""

    name: str
    begin: Callable[[Bed], None]
    change: Callable[[Bed], None] = nothing


def mute(bed: Bed) -> None:
    """Lose what the smaller side sends."""
    bed.network.cut(bed.isolated, bed.others, one_way=True)


def deaf(bed: Bed) -> None:
    """Lose what is sent to the smaller side."""
    bed.network.cut(bed.others, bed.isolated, one_way=True)


def delay_then_cut(bed: Bed) -> None:
    """Let m1 hear old news of the other members, so that it is late to notice that it is not heard any more.

    Service a reaches m1 only, service b the others only.
    """
    members = [bed.m2.host, bed.m3.host]
    bed.network.delay(members, [bed.m1.host], OLD_NEWS_SECONDS, one_way=True)
    time.sleep(2)
    bed.network.cut([bed.m1.host], members, one_way=True)
    bed.network.cut([bed.a.host], members)
    bed.network.cut([bed.m1.host], [bed.b.host])


def isolate_and_pause(bed: Bed) -> None:
    """Isolate m1 and a, and pause the machine of m1."""
    bed.isolate()
    bed.m1.pause()


def resume(bed: Bed) -> None:
    """Resume the machine of m1 some time after the end of the session."""
    time.sleep(PAUSE_SECONDS)
    bed.m1.resume()


def slow_links(bed: Bed) -> None:
    """Delay all packets between service a and the members."""
    bed.network.delay([bed.a.host], [member.host for member in bed.members], SLOW_LINK_SECONDS)


def slow_members(bed: Bed) -> None:
    """Delay all packets between m1 and the other members."""
    bed.network.delay([bed.m1.host], [bed.m2.host, bed.m3.host], SLOW_MEMBER_SECONDS)


def lossy_links(bed: Bed) -> None:
    """Lose some packets between m1 and the other members, and between service a and all members."""
    bed.network.lose([bed.m1.host], [bed.m2.host, bed.m3.host], LOST_SHARE)
    bed.network.lose([bed.a.host], [member.host for member in bed.members], LOST_SHARE)


def flap(bed: Bed) -> None:
    """Let m1 and a reach all others for a moment, again and again; between, they do not reach each other either."""
    for _ in range(FLAPS):
        bed.heal()
        time.sleep(MOMENT_SECONDS)
        bed.network.cut([bed.a.host], bed.others)
        bed.network.cut([bed.m1.host], bed.others)
        time.sleep(FLAP_SECONDS)


def cut_followers(bed: Bed) -> None:
    """Lose all packets between the resource servers and both services."""
    bed.network.cut(bed.followers, [service.host for service in bed.services])


def deaf_followers(bed: Bed) -> None:
    """Lose what is sent to the resource servers."""
    bed.network.cut([service.host for service in bed.services], bed.followers, one_way=True)


def slow_followers(bed: Bed) -> None:
    """Delay all packets between the resource servers and the services."""
    bed.network.delay(bed.followers, [service.host for service in bed.services], SLOW_MEMBER_SECONDS)


def lossy_followers(bed: Bed) -> None:
    """Lose some packets between the resource servers and the services."""
    bed.network.lose(bed.followers, [service.host for service in bed.services], LOST_SHARE)


def replace_workers(bed: Bed) -> None:
    """Kill every worker of both services once."""
    for service in bed.services:
        service.replace_workers()


FAULTS = (
    Fault("no-fault", nothing),
    Fault("symmetric", Bed.isolate),
    Fault("early-failover", Bed.isolate_with_two_primaries),
    Fault("delayed", delay_then_cut),
    Fault("mute", mute),
    Fault("deaf", deaf),
    Fault("slow-links", slow_links),
    Fault("slow-members", slow_members),
    Fault("loss", lossy_links),
    Fault("flapping", Bed.isolate, flap),
)
# What can happen to those who follow the services, besides.
FOLLOWING = (
    Fault("cut-followers", cut_followers),
    Fault("deaf-followers", deaf_followers),
    Fault("slow-followers", slow_followers),
    Fault("lossy-followers", lossy_followers),
    Fault("restarted", nothing, Bed.restart),
    Fault("replaced-workers", nothing, replace_workers),
    Fault("isolated-and-restarted", Bed.isolate, Bed.restart),
)
PAUSED_MACHINE = Fault("paused-machine", isolate_and_pause, resume)
