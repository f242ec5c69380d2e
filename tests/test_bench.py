"""The benchmark documents all experiments, and computes what its rows state."""

import re

import pytest

from bench import following
from bench.__main__ import EXPERIMENTS
from bench.accounts import Kind
from bench.experiments import soak
from bench.experiments.soak import Sample
from bench.following import Counters
from tests.serving import CHECKOUT


def test_the_readme_describes_every_experiment() -> None:
    section = (CHECKOUT / "bench" / "README.md").read_text().partition("## Experiments")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z][a-z-]*)` \|", section, re.MULTILINE)) == set(EXPERIMENTS)


def test_every_user_logs_in_in_one_way() -> None:
    numbers = [number for kind in Kind for number in kind.numbers(10)]
    assert sorted(numbers) == list(range(10))


def test_the_cost_of_followers_is_that_of_the_time_between_two_readings() -> None:
    before = Counters(10.0, 100, [1.0, 2.0], 1_000)
    after = Counters(14.0, 300, [3.0, 2.4], 9_000)
    cost = following.cost(before, after, failures=1)
    assert (cost.commands_per_second, cost.oplog_bytes_per_second, cost.failures) == (50, 2_000, 1)
    assert cost.cpu_percent == pytest.approx([50, 10])


@pytest.mark.parametrize(
    ("growth", "slope", "reached"), [(0.0, "+0.0", True), (0.001, "+3.6", True), (0.01, "+36.0", False)]
)
def test_the_soak_detects_growth_after_the_warm_up(growth: float, slope: str, reached: bool) -> None:
    """The warm-up, in which memory grows by design, does not count."""
    warm_up = [Sample(at, pss=at / 4, rss=200) for at in range(0, 400, 10)]
    steady = [Sample(at, pss=100 + growth * at, rss=200) for at in range(400, 2000, 10)]
    row = soak.row([*warm_up, *steady], requests=800_000, seconds=2000)
    assert row.reached is reached
    assert f"slope {slope} MB of PSS per hour" in row.detail
    assert "400 of 400 requests/s" in row.detail
