"""What was measured: ratios with their targets, and each server's own figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numerators: Sequence[float], denominators: Sequence[float]) -> "Ratio":
        """Divide round by round: both were measured close together, so what disturbs the machine disturbs both."""
        ratios = [one / other for one, other in zip(numerators, denominators, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))


class Wanted(Enum):
    """Which side of the target is the good one."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True)
class Row:
    """One line of the table; without a target it only reports."""

    what: str
    ratio: Ratio | None = None
    wanted: Wanted = Wanted.AT_LEAST
    target: float | None = None
    detail: str = ""

    @property
    def reached(self) -> bool | None:
        """Tell whether the median reaches the target; None if there is none."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio.median >= self.target if self.wanted is Wanted.AT_LEAST else self.ratio.median <= self.target


@dataclass
class Figures:
    """One server's figures, one for each round."""

    hello: list[float] = field(default_factory=list)  # requests per second
    secret: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    hello_cpu: list[float] = field(default_factory=list)  # microseconds of processor for one request
    secret_cpu: list[float] = field(default_factory=list)
    fresh_cpu: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)  # how much of its core it got while it was under load
    start_seconds: list[float] = field(default_factory=list)
    rss_bytes: list[float] = field(default_factory=list)  # of the worker, after the run
    pss_bytes: list[float] = field(default_factory=list)  # of all its processes


@dataclass
class Results:
    """Everything that goes into the table and the plot."""

    rows: list[Row] = field(default_factory=list)
    servers: dict[str, Figures] = field(default_factory=dict)
