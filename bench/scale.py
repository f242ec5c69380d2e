"""How much is measured: all of it, or what fits into two minutes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Rounds, seconds of each burst of load, and how much data."""

    name: str
    rounds: int  # over all servers
    burst_seconds: int
    warm_up_seconds: int  # before each server's first burst; 0: only the thousand tokens, one after another
    fresh_tokens: int  # more than a burst can show, and so many that none is still remembered when it comes again
    pair_rounds: int  # of experiments on one or two servers
    pair_burst_seconds: int
    ended_sessions: int
    few_users: int
    many_users: int
    logins: int  # one after another, with few users and with many
    page: int  # the late one
    pages_read: int
    tail_seconds: int
    soak_requests: int


FULL = Scale(
    name="full",
    rounds=5,
    burst_seconds=4,
    warm_up_seconds=1,
    fresh_tokens=200_000,
    pair_rounds=10,
    pair_burst_seconds=3,
    ended_sessions=100_000,
    few_users=1_000,
    many_users=1_000_000,
    logins=200,
    page=10_000,
    pages_read=500,
    tail_seconds=15,
    soak_requests=5_000_000,
)
QUICK = Scale(
    name="quick",
    rounds=2,
    burst_seconds=1,
    warm_up_seconds=0,
    fresh_tokens=40_000,
    pair_rounds=2,
    pair_burst_seconds=1,
    ended_sessions=50_000,
    few_users=1_000,
    many_users=60_000,
    logins=40,
    page=1_000,
    pages_read=100,
    tail_seconds=2,
    soak_requests=0,
)
