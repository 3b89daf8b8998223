"""Stage `train`: every variant, fold and seed, into `models/runs/<variant>/fold<k>/seed<s>/`.

DVC empties `models/` before the stage, so runs live in the clip cache's folder (`runs/<key>/`), where an
interrupted run is continued and a finished one is reused, and are copied from there. The key is the hash of what decides
the result: features, labels the fold may see, roles, parameters, this code, the version of torch.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.code import code_digest
from pipeline.devices import pick_devices
from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.progress import track
from pipeline.runs.run import save_run
from pipeline.stop import follow_parent
from pipeline.storage.atomic import atomic_folder, write_json, write_text
from pipeline.storage.clip_cache import digest, root

from .data.dataset import Dataset
from .data.labels import fold_numbers
from .loop import Progress, fit
from .variants import Variant, spec, variants

#: Below this, starting worker processes costs more than it saves.
FEW = 4

#: Above this many bytes of features, copies for worker processes are not made.
LARGE = 512 * 2**20


@dataclass(frozen=True)
class Sources:
    """The files `train` reads. Held-out truth is not among them."""

    index: str = "data/index.h5"
    manifest: str = "data/manifest.parquet"
    folds: str = "data/folds.parquet"
    annotations: str = "data/annotations.parquet"


@dataclass(frozen=True)
class Job:
    """One run."""

    variant: Variant
    fold: int
    seed: int

    @property
    def path(self) -> str:
        return f"{self.variant.name}/fold{self.fold}/seed{self.seed}"


def train(
    params: Params,
    index: str | Path = "data/index.h5",
    *,
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    annotations: str | Path = "data/annotations.parquet",
    out: str | Path = "models/runs",
    on_run: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Train all runs of the parameters.

    Args:
        on_run: called after each run with its path, how many are done, how many there are.

    Returns:
        The run folders. Beside them `history.csv` (variant, fold, seed, epoch, losses, validation metric).

    Raises:
        StoreError, ParamsError, DeviceError: see `fit`, `Dataset.load`, `pick_devices`.
    """
    sources = Sources(*(str(path) for path in (index, manifest, folds, annotations)))
    out = Path(out)
    jobs = [
        Job(variant, fold, seed)
        for fold in fold_numbers(folds)
        for variant in variants(params)
        for seed in range(params.training.seeds)
    ]
    _clear(out, {job.path for job in jobs})
    histories: dict[str, list[dict]] = {}
    with track(len(jobs), "train") as advance:
        for done, (job, folder, history) in enumerate(_results(params, sources, jobs), 1):
            with atomic_folder(out / job.path) as made:
                shutil.copytree(folder, made, dirs_exist_ok=True)
            histories[job.path] = history
            advance(1)
            if on_run is not None:
                on_run(job.path, done, len(jobs))
    write_text(out / "history.csv", _table(jobs, histories))
    return [out / job.path for job in jobs]


def run_job(
    params: Params, sources: Sources, job: Job, *, every: float = 10.0, on_epoch: Callable[[Progress], None] | None = None
) -> tuple[Path, list[dict]]:
    """One run, from the cache when it is finished there, continued when it was interrupted.

    Args:
        every: seconds between saves of an unfinished run.

    Returns:
        The run's folder in the cache and its history.
    """
    device = pick_devices(params.run.device)[0]
    before = torch.get_num_threads()
    torch.set_num_threads(params.training.threads)
    try:
        data = _load(params, sources, job.fold, device)
        identity = _identity(params, job, data, device)
        cached = root() / "runs" / digest(identity)
        if not (cached / "run" / "history.json").is_file():
            cached.mkdir(parents=True, exist_ok=True)
            write_json(cached / "identity.json", identity)
            model, progress = fit(
                spec(params, job.variant, data), data, params, job.seed, state=cached / "state.pt", every=every, on_epoch=on_epoch
            )
            save_run(cached / "run", model, data, _config(params, job, data, progress), progress.history)
            (cached / "state.pt").unlink(missing_ok=True)
    finally:
        torch.set_num_threads(before)
    return cached / "run", json.loads((cached / "run" / "history.json").read_text(encoding="utf-8"))


def _results(params: Params, sources: Sources, jobs: list[Job]) -> Iterator[tuple[Job, Path, list[dict]]]:
    """Run all jobs, in worker processes when that pays; what is not first come is not first served."""
    first, rest = jobs[0], jobs[1:]
    yield first, *run_job(params, sources, first)
    workers = min(params.run.workers, len(rest) // 2)
    data = _load(params, sources, first.fold, pick_devices(params.run.device)[0])
    if (
        workers < 2
        or len(rest) < FEW
        or pick_devices(params.run.device) != ["cpu"]
        or data.size > LARGE
        or all(_finished(params, sources, job) for job in rest)
    ):
        for job in rest:
            yield job, *run_job(params, sources, job)
        return
    # spawn: torch's thread pools do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent) as pool:
        pending = {pool.submit(run_job, params, sources, job): job for job in rest}
        try:
            for future in as_completed(pending):
                yield pending[future], *future.result()
        except BaseException:
            # A run takes minutes and its state is saved: nobody waits for it to end.
            for child in multiprocessing.active_children():
                child.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(params: Params, sources: Sources, job: Job) -> bool:
    device = pick_devices(params.run.device)[0]
    identity = _identity(params, job, _load(params, sources, job.fold, device), device)
    return (root() / "runs" / digest(identity) / "run" / "history.json").is_file()


@functools.lru_cache(maxsize=1)
def _cached_load(params: str, sources: Sources, stamps: tuple, fold: int, device: str) -> Dataset:
    return Dataset.load(
        sources.index,
        sources.manifest,
        sources.folds,
        Params.model_validate_json(params),
        fold,
        annotations=sources.annotations,
        device=device,
    )


def _load(params: Params, sources: Sources, fold: int, device: str) -> Dataset:
    """The fold's data; the last one stays in memory, as runs of one fold follow each other."""
    paths = [Path(p) for p in vars(sources).values()]
    stamps = tuple((p.stat().st_mtime_ns, p.stat().st_size) if p.is_file() else None for p in paths)
    return _cached_load(params.model_dump_json(), sources, stamps, fold, device)


def _relevant(params: Params, variant: Variant) -> dict:
    """The parameters that decide a run."""
    training = params.training.model_dump(mode="json", exclude={"seeds", "unimodal"})
    return {
        "training": training,
        "loss": params.loss.model_dump(mode="json"),
        "task": params.task.model_dump(mode="json"),
        "temporal": params.temporal.model_dump(mode="json"),
        "fusion": variant.fusion.model_dump(mode="json"),
    }


def _identity(params: Params, job: Job, data: Dataset, device: str) -> dict:
    return {
        "params": _relevant(params, job.variant),
        "fold": job.fold,
        "seed": job.seed,
        "variant": job.variant.name,
        "model": spec(params, job.variant, data).model_dump(mode="json"),
        "streams": {name: data.streams[name].facts for name in job.variant.streams},
        "encoders": {name: params.streams[name].model_dump(mode="json") for name in job.variant.streams},
        "labels": data.fingerprint(job.variant.streams),
        "code": code_digest("pipeline.training.loop", "pipeline.runs.run"),
        "torch": torch.__version__,
        "device": device.partition(":")[0],
    }


def _config(params: Params, job: Job, data: Dataset, progress: Progress) -> dict:
    """What `config.json` says besides the model's shape."""
    return {
        "variant": job.variant.name,
        "fold": job.fold,
        "seed": job.seed,
        "select": params.training.select,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "score": progress.key[0],
        "max_tokens": params.temporal.max_tokens,
        "params": _relevant(params, job.variant),
        "streams": {name: data.streams[name].facts for name in job.variant.streams},
        "encoders": {name: params.streams[name].model_dump(mode="json") for name in job.variant.streams},
        "clips": {role: len(data.rows(role)) for role in ("train", "val")},
    }


def _clear(out: Path, wanted: set[str]) -> None:
    """Remove run folders of earlier parameters; nothing else is touched."""
    out.mkdir(parents=True, exist_ok=True)
    if not out.is_dir():
        raise StoreError(f"{out} is not a folder.")
    for folder in out.glob("*/fold*/seed*"):
        if folder.is_dir() and folder.relative_to(out).as_posix() not in wanted:
            shutil.rmtree(folder)


def _table(jobs: list[Job], histories: dict[str, list[dict]]) -> str:
    text = io.StringIO()
    columns = list(next(iter(histories.values()))[0])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "fold", "seed", *columns])
    for job in sorted(jobs, key=lambda j: j.path):
        for row in histories[job.path]:
            writer.writerow([job.variant.name, job.fold, job.seed, *(row[c] for c in columns)])
    return text.getvalue()
