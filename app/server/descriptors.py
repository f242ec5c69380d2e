"""The limit of open files (RLIMIT_NOFILE), and how many of them are for connections."""

import resource
from contextlib import suppress

from sanic.log import logger

OPEN_MAX = 10_240  # macOS allows no higher soft limit where the hard limit is infinite (setrlimit(2))
MIN_LIMIT = 128
# A worker has 40 open files when it starts, and up to 100 connections to the primary (maxPoolSize). The rest is for
# monitoring the members of the replica set, and for the spare connections of app/server/connections.py.
RESERVED = 192


def raise_limit() -> tuple[int, int]:
    """Raise the soft limit to the hard limit.

    Returns the limit before and after.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, OPEN_MAX):
        if soft != resource.RLIM_INFINITY and (limit == resource.RLIM_INFINITY or limit > soft):
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return soft, limit
    return soft, soft


def capacity(per_worker: int) -> int:
    """Return how many connections a worker may keep open: at most `per_worker`."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return per_worker
    return max(1, min(per_worker, limit - min(RESERVED, limit // 2)))


def prepare(per_worker: int) -> None:
    """Raise the limit before the workers start, which inherit it.

    What it means for them is logged.

    Exits with a message if the limit is too low to serve.
    """
    before, limit = raise_limit()
    if limit != resource.RLIM_INFINITY and limit < MIN_LIMIT:
        raise SystemExit(f"The limit of open files is {limit}, and at least {MIN_LIMIT} are needed: {HOW}")
    if limit != before:
        logger.info("raised the limit of open files from %s to %s", before, limit)
    if (allowed := capacity(per_worker)) < per_worker:
        logger.warning(
            "the limit of open files, %s, allows %s connections per worker, CONNECTIONS_PER_WORKER is %s: %s",
            limit,
            allowed,
            per_worker,
            HOW,
        )


HOW = "raise it with ulimit -Hn, LimitNOFILE= of systemd, or ulimits: nofile of Compose"
