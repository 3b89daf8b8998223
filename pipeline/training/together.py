"""Starting the processes that learn one run together: this one is the first, and the others end with it."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline.devices import pick_devices
from pipeline.errors import DeviceError, ParamsError, UserError, WorkerError
from pipeline.models.registry import FUSIONS
from pipeline.params import Params
from pipeline.stop import follow_parent, sparing_children

from .team import ALONE, Team
from .variants import Variant

#: Seconds in which a process that ended badly is seen to have ended, and between two looks.
GRACE, TICK = 30.0, 0.05
#: Where those who have come are counted.
HERE = "here"


def count_processes(params: Params, variant: Variant) -> int:
    """How many learn a run of the variant: those of `training.processes` where its fusion holds a language model, else one."""
    return params.training.processes if not variant.linear and FUSIONS.find(variant.fusion.name).holds_language else 1


def check_processes(params: Params, variant: Variant) -> None:
    """Raise unless there is a device for each process that would learn a run of the variant.

    Raises:
        ParamsError, DeviceError: see `choose_devices`.
    """
    if (count := count_processes(params, variant)) > 1:
        choose_devices(params, count)


def choose_devices(params: Params, count: int) -> list[str]:
    """Where each of `count` processes computes: a GPU of its own, or all on the processor.

    Raises:
        ParamsError: runs go to a Ray cluster. DeviceError: there are fewer GPUs.
    """
    if params.run.engine == "ray":
        raise ParamsError(
            "run.engine is ray, which gives a run one process; set training.processes to 1, or the engine to local."
        )
    devices = pick_devices(params.run.device)
    if devices == ["cpu"]:
        return devices * count
    if len(devices) < count:
        raise DeviceError(
            f"training.processes is {count}, but run.device {params.run.device} has {len(devices)} GPUs; "
            "set processes to as many, or run.device to cpu."
        )
    return devices[:count]


@contextmanager
def choose_team(params: Params, variant: Variant, help_along: Callable[..., None], *given: object) -> Iterator[Team]:
    """The team that learns a run of the variant, see `gather_team`; the others are given the parameters too.

    Raises:
        DeviceError, WorkerError: see `choose_devices`, `gather_team`.
    """
    count = count_processes(params, variant)
    if count == 1:
        yield ALONE
        return
    with gather_team(choose_devices(params, count), params.training.shard, help_along, params, *given) as team:
        yield team


@contextmanager
def gather_team(devices: list[str], sharded: bool, help_along: Callable[..., None], *given: object) -> Iterator[Team]:
    """A team of this process and one more for every further device, which runs `help_along(team, device, *given)`.

    Args:
        help_along: a function of a module, that asks of the team what this process asks of it, in the same order.

    Raises:
        WorkerError: one of the others ended before its time.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        teams = [Team(rank, len(devices), sharded) for rank in range(len(devices))]
        helpers: list[BaseProcess] = [
            context.Process(target=_help, args=(team, device, meeting, help_along, given), daemon=True)
            for team, device in zip(teams[1:], devices[1:], strict=True)
        ]
        try:
            with sparing_children():
                for helper in helpers:
                    helper.start()
            store = torch.distributed.FileStore(meeting, len(devices))
            while store.add(HERE, 0) < len(helpers):  # or this process would wait half an hour for one that never comes
                if (failure := _find_failure(helpers)) is not None:
                    raise failure
                time.sleep(TICK)
            with _connect(teams[0], devices[0], store):
                yield teams[0]
        except RuntimeError as error:  # of the connection; why it was cut, the other process knows
            until = time.monotonic() + GRACE
            while (failure := _find_failure(helpers)) is None and time.monotonic() < until:
                time.sleep(TICK)
            if failure is None:
                raise
            raise failure from error
        finally:
            for helper in helpers:
                if helper.pid is not None:
                    helper.kill()
                    helper.join()


def _find_failure(helpers: list[BaseProcess]) -> WorkerError | None:
    """What to say of one that has failed, None where none has."""
    code = next((helper.exitcode for helper in helpers if helper.exitcode), None)
    if code is None:
        return None
    said = "its error is above" if code > 0 else f"signal {-code} ended it; is there enough memory?"
    return WorkerError(f"one of the {len(helpers) + 1} processes of training.processes has ended: {said}.")


def _help(team: Team, device: str, meeting: str, help_along: Callable[..., None], given: tuple[object, ...]) -> None:
    follow_parent()
    store = torch.distributed.FileStore(meeting, team.size)
    store.add(HERE, 1)
    try:
        with _connect(team, device, store):
            help_along(team, device, *given)
    except UserError as error:
        sys.exit(f"error: {error}")


@contextmanager
def _connect(team: Team, device: str, store: torch.distributed.Store) -> Iterator[None]:
    """With the others, for the length of the block."""
    from accelerate import PartialState
    from accelerate.utils import patch_environment

    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    ranks = {"rank": team.rank, "local_rank": team.rank, "world_size": team.size, "local_world_size": team.size}
    # Its threads are counted elsewhere, and its device is chosen.
    named = {"omp_num_threads": torch.get_num_threads(), "accelerate_torch_device": device}
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=team.rank, world_size=team.size)
    try:
        with patch_environment(**ranks, **named):
            PartialState(cpu=not on_gpu)
            yield
    finally:
        PartialState._reset_state()  # a later team is another
        torch.distributed.destroy_process_group()
