"""The memory of all processes of a service with two workers, over half an hour of mixed load."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import linear_regression, median

from bench import load, mail, mixed_load, tokens
from bench.bench import Bench
from bench.database import fill_users
from bench.load import Load
from bench.machine import BOTH_CORES
from bench.mixed_load import REQUESTS_PER_SECOND, Target
from bench.progress import Plan
from bench.results import Bound, Ratio, Row
from bench.scale import Scale
from bench.servers import Server, running
from bench.setup import Setup
from bench.tokens import TokenSigner

WORKERS = 2
STEPS = 20
SAMPLES_PER_STEP = 10
PARTS = 5  # equal parts of the load; the first one is the warm-up
# A worker remembers an ended session for this time and five minutes more, which must end within the warm-up.
ACCESS_TOKEN_SECONDS = 60
FRESH_TOKENS, FRESH_SECONDS = 50_000, 10
TARGET = 1.02
MEGABYTE = 1_000_000
SETTINGS = {
    **mail.SETTINGS,
    "APP_ACCESS_TOKEN_SECONDS": str(ACCESS_TOKEN_SECONDS),
    "APP_REGISTRATIONS_PER_ADDRESS": "1000000/minute",
}


@dataclass(frozen=True)
class Sample:
    """The memory of all processes together, in MB."""

    at: float  # seconds, by the monotonic clock
    pss: float
    rss: float


def plan(scale: Scale, _: Setup) -> Plan:
    """Return 1 for the preparation plus the number of steps, or 0 in a quick run."""
    return Plan(1 + STEPS if scale.soak_seconds else 0, scale.soak_seconds / STEPS)


def run(bench: Bench) -> None:
    """Apply the mixed load for `soak_seconds`, and compare the memory after the warm-up with that at the end."""
    if not bench.scale.soak_seconds:
        bench.results.rows.append(Row("memory under a mixed load: not measured in a quick run"))
        return
    bench.step("add users and fill the caches of verified tokens")
    with ExitStack() as stack:
        mails, smtp_url = stack.enter_context(mail.mail_server())
        settings = {**SETTINGS, "APP_SMTP_URL": smtp_url}
        contender = bench.service("soak", workers=WORKERS, cores=BOTH_CORES, settings=settings)
        uri = bench.mongo_uri("soak")
        (admin_id,) = fill_users(uri, 0)
        addresses = list(mail.add_users(uri))
        server = stack.enter_context(running(contender, bench.folder))
        signer = TokenSigner(bench.key, lifetime_seconds=ACCESS_TOKEN_SECONDS)
        _fill_caches(bench, server, signer)
        target = Target(server.port, admin_id, signer, mails)
        samples, requests = asyncio.run(_measure(bench, server, target, addresses))
    bench.results.rows.append(row(samples, requests, bench.scale.soak_seconds))


def _fill_caches(bench: Bench, server: Server, signer: TokenSigner) -> None:
    """Fill the caches of verified tokens, which would else grow for the whole run, up to their limit."""
    fresh = tokens.write(bench.folder / "soak_tokens", signer.sign_many(FRESH_TOKENS))
    load.apply(server, Load("/tests/secret", FRESH_SECONDS, lines="token", file=fresh))


async def _measure(bench: Bench, server: Server, target: Target, addresses: list[str]) -> tuple[list[Sample], int]:
    seconds = bench.scale.soak_seconds
    applied = asyncio.create_task(mixed_load.apply(target, addresses, seconds))
    sampled = asyncio.create_task(_sample(bench, server, seconds))
    requests, samples = await asyncio.gather(applied, sampled)
    return samples, requests


async def _sample(bench: Bench, server: Server, seconds: float) -> list[Sample]:
    samples: list[Sample] = []
    pause = seconds / STEPS / SAMPLES_PER_STEP
    for step in range(STEPS):
        bench.step(f"mixed load, {step * seconds / STEPS:.0f} of {seconds:.0f} seconds")
        for _ in range(SAMPLES_PER_STEP):
            await asyncio.sleep(pause)
            pss, rss = server.pss_bytes() / MEGABYTE, server.total_rss_bytes() / MEGABYTE
            samples.append(Sample(time.monotonic(), pss, rss))
    return samples


def row(samples: list[Sample], requests: int, seconds: float) -> Row:
    """Compare the first part after the warm-up with the last part, and fit a line through all after the warm-up."""
    part = len(samples) // PARTS
    after, first, last = samples[part:], samples[part : 2 * part], samples[-part:]
    pss, reference = [one.pss for one in last], [one.pss for one in first]
    slope = linear_regression([one.at for one in after], [one.pss for one in after]).slope
    figures = [
        f"PSS {median(pss):.1f} MB / {median(reference):.1f} MB",
        f"RSS {median(one.rss for one in last):.1f} MB / {median(one.rss for one in first):.1f} MB",
        f"slope {3600 * slope:+.1f} MB of PSS per hour",
        f"{requests / seconds:,.0f} of {REQUESTS_PER_SECOND} requests/s",
    ]
    return Row(
        f"memory of {WORKERS} workers under {seconds:,.0f} s of mixed load, at the end / after the warm-up",
        Ratio.of(pss, reference),
        Bound.AT_MOST,
        TARGET,
        ", ".join(figures),
    )
