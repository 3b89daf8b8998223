"""Progress of long work, on stderr: a live bar at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
#: Seconds between lines when nobody watches.
PAUSE = 10.0


@contextmanager
def track(total: int, description: str) -> Iterator[Callable[[int], None]]:
    """Give a function that is called with the number of items just done."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(description, total=total)

            def step(count: int = 1) -> None:
                progress.advance(task, count)

            yield step
        return
    done, last = 0, time.monotonic()

    def advance(count: int = 1) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= PAUSE:
            last = time.monotonic()
            log.info("%s: %d of %d", description, done, total)

    yield advance
