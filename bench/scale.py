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
    logins: int  # sequential, of each kind of user, with few users and with many users
    page: int  # the number of the late page
    pages_read: int
    tail_seconds: int
    user_sessions: int  # of one user: the highest SESSIONS_PER_USER
    other_sessions: int  # of other users
    visits: int  # by users with few and with many sessions
    waiting_mails: int  # in the outbox, and as many unused reset tokens
    resets: int  # requests for a reset; a fifth as many resets are completed
    followers: tuple[int, ...]  # of the ended sessions; the first number is the reference
    follower_rounds: int
    follower_seconds: int
    idle_connections: int
    memory_requests: int
    soak_seconds: int


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
    user_sessions=1_000,
    other_sessions=500_000,
    visits=50,
    waiting_mails=100_000,
    resets=1_000,
    followers=(2, 50, 200, 1_000),
    follower_rounds=2,
    follower_seconds=8,
    idle_connections=10_000,
    memory_requests=5_000_000,
    soak_seconds=2_000,
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
    user_sessions=1_000,
    other_sessions=20_000,
    visits=20,
    waiting_mails=10_000,
    resets=200,
    followers=(2, 50),
    follower_rounds=1,
    follower_seconds=4,
    idle_connections=1_000,
    memory_requests=0,
    soak_seconds=0,
)
