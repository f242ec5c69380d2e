"""The memory of one worker over millions of requests."""

from bench import load, tokens
from bench.bench import Bench
from bench.load import Load
from bench.progress import Plan
from bench.results import Row
from bench.scale import Scale
from bench.servers import running
from bench.setup import Setup

CHUNK_SECONDS = 10
CHUNKS_EXPECTED = 30  # for the progress bar
WARM_UP_SECONDS = 5
MEGABYTE = 1_000_000


def plan(scale: Scale, _: Setup) -> Plan:
    """Return the approximate number of chunks, or 0 in a quick run."""
    return Plan(CHUNKS_EXPECTED if scale.memory_requests else 0, CHUNK_SECONDS)


def run(bench: Bench) -> None:
    """Request the secret `memory_requests` times, and compare the worker's RSS before and after."""
    if not bench.scale.memory_requests:
        bench.results.rows.append(Row("memory over millions of requests: not measured in a quick run"))
        return
    rotation, file = bench.rotation()
    with running(bench.service("memory"), bench.folder) as server:
        tokens.verify(server, rotation)
        load.apply(server, Load("/tests/secret", WARM_UP_SECONDS, lines="token", file=file))
        before, requests, chunks = server.rss_bytes(), 0, 0
        while requests < bench.scale.memory_requests:
            chunks += 1
            if chunks <= CHUNKS_EXPECTED:
                bench.step(f"memory: {requests / 1e6:.1f} of {bench.scale.memory_requests / 1e6:.0f} million requests")
            requests += load.apply(server, Load("/tests/secret", CHUNK_SECONDS, lines="token", file=file)).requests
        after = server.rss_bytes()
    detail = f"{before / MEGABYTE:.1f} MB before, {after / MEGABYTE:.1f} MB after (RSS): {after / before - 1:+.1%}"
    bench.results.rows.append(Row(f"memory of one worker over {requests / 1e6:.1f} million requests", detail=detail))
