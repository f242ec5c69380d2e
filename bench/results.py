"""The measurements: ratios with their targets, and the figures of each server."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """The median, the lowest and the highest of the ratios of all rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numerators: Sequence[float], denominators: Sequence[float]) -> "Ratio":
        """Divide round by round. Both values of a round are measured close together, so a disturbance affects both."""
        ratios = [one / other for one, other in zip(numerators, denominators, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))


class Bound(Enum):
    """Whether a target is a minimum or a maximum."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass
class Requests:
    """What requests of one kind took, with one value per round."""

    rate: list[float] = field(default_factory=list)  # per second
    cpu: list[float] = field(default_factory=list)  # CPU microseconds per request


@dataclass(frozen=True)
class Row:
    """One line of the table; the target is optional."""

    what: str
    ratio: Ratio | None = None
    bound: Bound = Bound.AT_LEAST
    target: float | None = None
    detail: str = ""

    @classmethod
    def of_rates(
        cls, what: str, requests: Requests, reference: Requests, target: float | None = None, detail: str = ""
    ) -> "Row":
        """Compare requests per second; by CPU time, which other processes affect less, in the details."""
        by_cpu = f"by CPU time per request: {Ratio.of(reference.cpu, requests.cpu).median:.2f}"
        ratio = Ratio.of(requests.rate, reference.rate)
        return cls(what, ratio, target=target, detail=f"{by_cpu}, {detail}" if detail else by_cpu)

    @property
    def reached(self) -> bool | None:
        """Return whether the median reaches the target, or None without a target."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio.median >= self.target if self.bound is Bound.AT_LEAST else self.ratio.median <= self.target


@dataclass
class Figures:
    """The figures of one server, with one value per round."""

    hello: Requests = field(default_factory=Requests)
    secret: Requests = field(default_factory=Requests)
    fresh: Requests = field(default_factory=Requests)  # the secret, with tokens that are sent for the first time
    core: list[float] = field(default_factory=list)  # the share of its core that it used under load
    start_seconds: list[float] = field(default_factory=list)
    rss_bytes: list[float] = field(default_factory=list)  # of the worker, after the run
    pss_bytes: list[float] = field(default_factory=list)  # of all processes of the server


@dataclass
class Results:
    """All data of the tables and the plot."""

    rows: list[Row] = field(default_factory=list)
    servers: dict[str, Figures] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # the servers that do not run on this machine
    setup: dict[str, str] = field(default_factory=dict)  # what was measured where, by the name of the part
