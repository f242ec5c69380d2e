"""The amounts to measure: a full run, or a quick run of a few minutes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The numbers of rounds, the seconds of load and the amounts of data."""

    name: str
    rounds: int  # in each round, all servers are measured
    burst_seconds: int
    warm_up_seconds: int  # of hello and of secret; 0: only 1,000 sequential requests with the tokens
    fresh_tokens: int  # more than a burst sends, and so many that a repeated token is no longer in the cache
    pair_rounds: int  # of experiments with one or two servers
    pair_burst_seconds: int
    ended_sessions: int
    few_users: int
    many_users: int
    logins: int  # sequential, with few users and with many users
    page: int  # the number of the late page
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
