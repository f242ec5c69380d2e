"""The latency of sequential requests, measured in blocks that alternate between the cases of a comparison."""

from collections.abc import Sequence
from statistics import median

import httpx

from bench.results import Bound, Ratio, Row

BLOCKS = 10


def seconds(response: httpx.Response) -> float:
    """Return how long a successful response took. Raises httpx.HTTPStatusError for others."""
    return response.raise_for_status().elapsed.total_seconds()


def row(
    what: str, cases: Sequence[float], references: Sequence[float], *, target: float | None = None, detail: str = ""
) -> Row:
    """Compare the medians of the blocks of a case with those of its reference, in seconds."""
    figures = f"{median(cases) * 1000:.1f} ms / {median(references) * 1000:.1f} ms"
    return Row(what, Ratio.of(cases, references), Bound.AT_MOST, target, figures + (f", {detail}" if detail else ""))
