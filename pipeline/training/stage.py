"""Stage `train`: every variant, fold and seed, into `models/runs/<variant>/fold<k>/seed<s>/`.

DVC empties `models/` before the stage, so runs live in the cache (see `jobs`) and are copied from there.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from pipeline.devices import pick_devices
from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.progress import track
from pipeline.runs.ensemble import choose_shares, write_shares
from pipeline.runs.folders import RunName
from pipeline.stop import follow_parent, sparing_children
from pipeline.storage.atomic import atomic_folder, write_text

from .data.labels import check_labels, fold_numbers
from .jobs import History, Job, Sources, is_finished, load_fold, run_job
from .variants import list_variants

#: Below this, starting worker processes costs more than it saves.
FEW = 4

#: Above this many bytes of features, copies for worker processes are not made.
LARGE = 512 * 2**20


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
        The run folders. Beside them `history.csv` (variant, fold, seed, phase, epoch, losses, validation metric),
        and with `training.ensemble` what each variant is worth in it.

    Raises:
        StoreError, ParamsError, DeviceError: see `fit`, `Dataset.load`, `pick_devices`.
    """
    sources = Sources(*(str(path) for path in (index, manifest, folds, annotations)))
    out = Path(out)
    check_labels(params, index, manifest, folds)
    jobs = [
        Job(variant, fold, seed)
        for fold in fold_numbers(folds)
        for variant in list_variants(params)
        for seed in range(1 if variant.linear else params.training.seeds)
    ]
    _clear(out, {job.name.path for job in jobs})
    histories: dict[RunName, History] = {}
    with track(len(jobs), "train") as advance:
        for done, (job, folder, history) in enumerate(_run_jobs(params, sources, jobs), 1):
            with atomic_folder(out / job.name.path) as made:
                shutil.copytree(folder, made, dirs_exist_ok=True)
            histories[job.name] = history
            advance(1)
            if on_run is not None:
                on_run(job.name.path, done, len(jobs))
    write_text(out / "history.csv", _format_history(histories))
    write_shares(out, choose_shares(params.training.ensemble.linear) if params.training.ensemble else None)
    return [out / job.name.path for job in jobs]


def _run_jobs(params: Params, sources: Sources, jobs: list[Job]) -> Iterator[tuple[Job, Path, History]]:
    """Run all jobs, in worker processes when that pays; in whatever order they end."""
    first, rest = jobs[0], jobs[1:]
    yield first, *run_job(params, sources, first)
    workers = min(params.run.workers, len(rest) // 2)
    devices = pick_devices(params.run.device)
    data = load_fold(params, sources, first.fold, devices[0])
    large = devices != ["cpu"] or data.nbytes > LARGE
    if workers < 2 or len(rest) < FEW or large or all(is_finished(params, sources, job) for job in rest):
        for job in rest:
            yield job, *run_job(params, sources, job)
        return
    # spawn: torch's thread pools do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), follow_parent) as pool:
        with sparing_children():
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


def _clear(out: Path, wanted: set[str]) -> None:
    """Remove run folders of earlier parameters; nothing else is touched."""
    out.mkdir(parents=True, exist_ok=True)
    if not out.is_dir():
        raise StoreError(f"{out} is not a folder.")
    for folder in out.glob("*/fold*/seed*"):
        if folder.is_dir() and folder.relative_to(out).as_posix() not in wanted:
            shutil.rmtree(folder)


def _format_history(histories: dict[RunName, History]) -> str:
    text = io.StringIO()
    columns = list(next(iter(histories.values()))[0])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "fold", "seed", *columns])
    for name in sorted(histories, key=lambda n: n.path):
        for row in histories[name]:
            writer.writerow([name.variant, name.fold, name.seed, *(row[c] for c in columns)])
    return text.getvalue()
