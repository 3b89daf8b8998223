"""Jobs on a Ray cluster: each run in a node's own cache, its folder sent to that of the machine that asked.

Every node must see the project at the same path, as for features. Runs go on processors, and on GPUs where the machine that
asks has one itself: the kind of device is in a run's identity.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

from pipeline import ray_cluster
from pipeline.devices import pick_devices
from pipeline.errors import DeviceError, ParamsError, StoreError, UserError
from pipeline.params import Params
from pipeline.runs.answers import FOLDER
from pipeline.runs.folders import HISTORY, copy_run
from pipeline.storage.atomic import atomic_folder
from pipeline.storage.clip_cache import root
from pipeline.storage.folder_lock import use_alone, use_folder

from .jobs import Job, is_finished, run_job
from .sources import Sources


class Packed(NamedTuple):
    """A run folder on its way: its key in the cache, its files, and the node it was made on."""

    key: str
    files: dict[str, bytes]
    node: str


def fill_cache(tasks: Sequence[tuple[Params, Job]], sources: Sources) -> Iterator[int]:
    """Places of the tasks, each as soon as its run is in the cache of this machine.

    A run that a node refuses as a user's mistake is handed out as well: running it here says why.

    Raises:
        ParamsError: Ray is not installed.
        DeviceError: no cluster at the address, or a node that does not see the project or would train otherwise.
    """
    missing = []
    for place, (params, job) in enumerate(tasks):
        try:
            # A student is trained here, where its members are.
            there = job.variant.student or is_finished(params, sources, job)
        except (ParamsError, StoreError):
            there = True  # it cannot even begin
        if there:
            yield place
        else:
            missing.append(place)
    if not missing:
        return
    options = tasks[0][0].run
    ray = ray_cluster.load(options.ray_address)
    device = pick_devices(options.device)[0].partition(":")[0]
    with ray_cluster.connect(ray, options.ray_address):
        remote = ray.remote(run_there).options(
            num_cpus=1,
            num_gpus=int(device == "cuda"),
            scheduling_strategy="SPREAD",
            runtime_env=ray_cluster.environment(),
        )
        calls = {}
        for place in missing:
            params, job = tasks[place]
            sent = params.model_copy(update={"run": params.run.model_copy(update={"device": device})})
            calls[remote.remote(os.getcwd(), sent.model_dump_json(), sources, job)] = place
        try:
            while calls:
                (done,), _ = ray.wait(list(calls), num_returns=1)
                place = calls.pop(done)
                _settle(ray, done, *tasks[place], sources)
                yield place
        finally:
            for call in calls:
                ray.cancel(call, force=True)


def run_there(folder: str, params: str, sources: Sources, job: Job) -> Packed:
    """On a node: the run, and its folder as bytes.

    Raises:
        DeviceError: the node does not see the project.
    """
    ray_cluster.enter(folder)
    made, _ = run_job(Params.model_validate_json(params), sources, job)
    with TemporaryDirectory() as copy:
        copy_run(made, Path(copy))
        return Packed(made.parent.name, _read_files(Path(copy)), socket.gethostname())


def _settle(ray: ModuleType, call: object, params: Params, job: Job, sources: Sources) -> None:
    try:
        packed = ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (ParamsError, StoreError)):
            return
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    except ray.exceptions.RayError as error:
        said = str(error).partition("\n")[0]
        raise DeviceError(f"a Ray node ended at {job.name.path} ({said}); run the same command to go on.") from error
    keep(packed)
    if not is_finished(params, sources, job):
        raise DeviceError(
            f"Ray node {packed.node} trains other runs: its libraries are not those of this machine; "
            "install the same requirements on every node."
        )


def keep(packed: Packed) -> None:
    """Put a run into the cache, or where it is there what it was asked."""
    with use_folder(root() / "runs" / packed.key) as cached, use_alone(cached / "answers.lock"):
        target = cached / "run"
        inside = FOLDER if (target / HISTORY).is_file() else ""
        with atomic_folder(target / inside, keep=None if inside else HISTORY) as made:
            for path, content in packed.files.items():
                if Path(path).is_relative_to(inside):
                    place = made / Path(path).relative_to(inside)
                    place.parent.mkdir(exist_ok=True)
                    place.write_bytes(content)


def _read_files(folder: Path) -> dict[str, bytes]:
    """By path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
