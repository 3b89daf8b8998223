"""Jobs side by side: on a Ray cluster, in worker processes where that pays, or one after the other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

from pipeline.devices import pick_devices
from pipeline.errors import ParamsError, StoreError
from pipeline.params import Params
from pipeline.stop import follow_parent, sparing_children

from . import on_ray
from .jobs import Job, is_finished
from .sources import Sources
from .together import check_processes

#: Below this, starting worker processes costs more than it saves.
FEW = 4

#: Of a worker process: where it computes.
_device: str | None = None

Result = TypeVar("Result")


def run_jobs(
    tasks: Sequence[tuple[Params, Job]], sources: Sources, work: Callable[[Params, Sources, Job], Result]
) -> Iterator[tuple[int, Result]]:
    """Place of each task and what `work` makes of it, in whatever order they end; the first is done in this process.

    Args:
        work: `run_job`, or a function of a module that calls it.
    """
    taught = [place for place, (_, job) in enumerate(tasks) if job.variant.student]
    if taught and len(taught) < len(tasks):  # their members first, which they are trained from
        members = [place for place in range(len(tasks)) if place not in set(taught)]
        for places in (members, taught):
            for place, result in run_jobs([tasks[place] for place in places], sources, work):
                yield places[place], result
        return
    if tasks[0][0].run.engine == "ray":
        for params, job in tasks:
            check_processes(params, job.variant)
        for place in on_ray.fill_cache(tasks, sources):
            yield place, work(tasks[place][0], sources, tasks[place][1])
        return
    (params, first), rest = tasks[0], range(1, len(tasks))
    yield 0, work(params, sources, first)
    missing = [place for place in rest if not _is_settled(*tasks[place], sources)]
    devices = choose_workers(params, len(missing))
    for place in sorted(set(rest) - set(missing)) if devices else rest:
        yield place, work(tasks[place][0], sources, tasks[place][1])
    if not devices:
        return
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()
    for device in devices:
        free.put(device)
    # spawn: torch's thread pools do not survive a fork.
    with ProcessPoolExecutor(len(devices), context, _begin_worker, (free,)) as pool:
        with sparing_children():
            pending = {pool.submit(_work_here, work, tasks[place][0], sources, tasks[place][1]): place for place in missing}
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


def choose_workers(params: Params, jobs: int) -> list[str]:
    """The device of each worker process for so many jobs: every GPU, or `run.workers` times the processor.

    Empty where one after the other in this process is as quick, or a run takes several by itself.
    Features need no thought: processes share the mapped stores.
    """
    devices = pick_devices(params.run.device)
    workers = (devices if devices != ["cpu"] else devices * params.run.workers)[: jobs // 2]
    return workers if jobs >= FEW and len(workers) > 1 and params.training.processes == 1 else []


def _is_settled(params: Params, job: Job, sources: Sources) -> bool:
    """Whether there is nothing to train: it is in the cache, or cannot even begin, which running it says."""
    try:
        return is_finished(params, sources, job)
    except (ParamsError, StoreError):
        return True


def _begin_worker(free: SimpleQueue[str]) -> None:
    global _device
    follow_parent()
    _device = free.get()


def _work_here(work: Callable[[Params, Sources, Job], Result], params: Params, sources: Sources, job: Job) -> Result:
    """In a worker: on its device, of the kind that was asked for."""
    assert _device is not None
    return work(params.model_copy(update={"run": params.run.model_copy(update={"device": _device})}), sources, job)
