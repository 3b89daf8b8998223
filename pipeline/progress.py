"""Progress of long work, on stderr: a live bar at a terminal; elsewhere lines with the time left, and a last one."""

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
    done = 0
    begun = last = time.monotonic()

    def advance(count: int = 1) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= PAUSE and done < total:
            last = now
            log.info("%s: %d of %d, about %s left", description, done, total, tell_time((now - begun) / done * (total - done)))

    yield advance
    if total:
        log.info("%s: %d of %d in %s", description, done, total, tell_time(time.monotonic() - begun))


def tell_time(seconds: float) -> str:
    """Seconds for people.

    >>> tell_time(4.2), tell_time(83), tell_time(7380)
    ('4 s', '1 min 23 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
