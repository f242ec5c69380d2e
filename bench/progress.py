"""The progress of a run: a bar on a terminal, and lines on other outputs."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import rich.progress
from rich.console import Console

PLANNED_SECONDS = 300  # the weight of the plan in the estimate: the first steps are often preparations, which are short


class Plan(NamedTuple):
    """The number of steps of an experiment, and roughly how long each takes."""

    steps: int
    seconds: float


class Progress:
    """The steps that were begun, and an estimate of the remaining time.

    `show` takes a line and the share of the run that is done.
    """

    def __init__(self, plans: Mapping[str, Plan], show: Callable[[str, float], None]) -> None:
        self._plans = plans
        self._show = show
        self._began = time.monotonic()
        self._total = sum(plan.steps for plan in plans.values())
        self._seconds = sum(plan.steps * plan.seconds for plan in plans.values())
        self._number = 0  # of the step
        self._done = 0.0  # planned seconds of the steps before this one
        self._experiment = ""

    def start(self, experiment: str) -> None:
        """Report the start of the next experiment."""
        before = list(self._plans.values())[: list(self._plans).index(experiment)]
        self._number = sum(plan.steps for plan in before)
        self._done = sum(plan.steps * plan.seconds for plan in before)
        self._experiment = experiment

    def step(self, what: str) -> None:
        """Report the start of the next step."""
        elapsed = time.monotonic() - self._began
        pace = (elapsed + PLANNED_SECONDS) / (self._done + PLANNED_SECONDS)
        left = (self._seconds - self._done) * pace
        self._number += 1
        number, times = f"[{self._number}/{self._total}]", f"{_minutes(elapsed)}, about {_minutes(left)} left"
        self._show(f"{number} {self._experiment}: {what} ({times})", self._done / self._seconds)
        self._done += self._plans[self._experiment].seconds


@contextmanager
def shown(plans: Mapping[str, Plan]) -> Iterator[Progress]:
    """Yield the progress of experiments, which is shown on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(plans, lambda line, _: print(line, file=sys.stderr, flush=True))
        return
    columns = (rich.progress.BarColumn(), rich.progress.TextColumn("{task.description}", markup=False))
    with rich.progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("starting MongoDB", total=1)
        yield Progress(plans, lambda line, share: bar.update(task, completed=share, description=line))
        bar.update(task, completed=1, description="done")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
