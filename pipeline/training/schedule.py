"""Jobs side by side: on a Ray cluster, in worker processes where that pays, or one after the other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from pipeline.devices import pick_devices
from pipeline.params import Params
from pipeline.stop import follow_parent, sparing_children

from . import on_ray
from .data.dataset import Dataset
from .jobs import Job, Sources, is_finished, load_fold

#: Below this, starting worker processes costs more than it saves.
FEW = 4

#: Above this many bytes of features, copies for worker processes are not made.
LARGE = 512 * 2**20

Result = TypeVar("Result")


def run_jobs(
    tasks: Sequence[tuple[Params, Job]], sources: Sources, work: Callable[[Params, Sources, Job], Result]
) -> Iterator[tuple[int, Result]]:
    """Place of each task and what `work` makes of it, in whatever order they end; the first is done in this process.

    Args:
        work: `run_job`, or a function of a module that calls it.
    """
    if tasks[0][0].run.engine == "ray":
        for place in on_ray.fill_cache(tasks, sources):
            yield place, work(tasks[place][0], sources, tasks[place][1])
        return
    (params, first), rest = tasks[0], range(1, len(tasks))
    yield 0, work(params, sources, first)
    workers = min(params.run.workers, len(rest) // 2)
    devices = pick_devices(params.run.device)
    large = devices != ["cpu"] or _measure(load_fold(params, sources, first.fold, devices[0])) > LARGE
    if workers < 2 or len(rest) < FEW or large or all(is_finished(tasks[i][0], sources, tasks[i][1]) for i in rest):
        for place in rest:
            yield place, work(tasks[place][0], sources, tasks[place][1])
        return
    # spawn: torch's thread pools do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent) as pool:
        with sparing_children():
            pending = {pool.submit(work, tasks[place][0], sources, tasks[place][1]): place for place in rest}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:
            # A run takes minutes and its state is saved: nobody waits for it to end.
            for child in multiprocessing.active_children():
                child.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _measure(data: Dataset) -> int:
    """Bytes of the features."""
    return sum(stream.nbytes for stream in data.streams.values())
