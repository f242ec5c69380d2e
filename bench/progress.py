"""A progress bar on a terminal, and plain lines on other outputs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that reports the start of each of `total` steps."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting MongoDB", total=total)
        begun = 0

        def step(what: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=what)
            begun += 1

        yield step
        progress.update(task, completed=total, description="done")


def _lines(total: int) -> Callable[[str], None]:
    begun, since = 0, time.monotonic()

    def step(what: str) -> None:
        nonlocal begun
        begun += 1
        print(f"[{begun}/{total}] {time.monotonic() - since:4.0f} s  {what}", file=sys.stderr, flush=True)

    return step
