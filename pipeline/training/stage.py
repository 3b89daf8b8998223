"""Stage `train`: every variant, fold and seed, into `models/runs/<variant>/fold<k>/seed<s>/`.

DVC empties `models/` before the stage, so runs live in the cache (see `jobs`) and are copied from there.
"""

from __future__ import annotations

import csv
import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.params.base import flatten
from pipeline.progress import track
from pipeline.runs.ensemble import choose_shares, write_shares
from pipeline.runs.folders import HISTORY, RunName, copy_run
from pipeline.storage.atomic import atomic_folder, write_text
from pipeline.storage.folder_lock import use_folder

from .data.labels import check_frames, check_labels, fold_numbers
from .identity import choose_parameters
from .jobs import History, Job, Sources, run_job
from .schedule import run_jobs
from .trackers.base import open_trackers
from .variants import list_variants

log = logging.getLogger(__name__)


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
        StoreError, ParamsError, DeviceError: see `fit`, `Dataset.load`, `pick_devices`. UserError: see `open_trackers`.
    """
    if params.protocol.kind == "none":
        return _train_nothing(Path(out))
    trackers = open_trackers(params.run.track)
    sources = Sources(*(str(path) for path in (index, manifest, folds, annotations)))
    out = Path(out)
    check_labels(params, index, manifest, folds)
    check_frames(params, annotations)
    jobs = [
        Job(variant, fold, seed)
        for fold in fold_numbers(folds)
        for variant in list_variants(params)
        for seed in range(1 if variant.once else params.training.seeds)
    ]
    _clear(out, {job.name.path for job in jobs})
    histories: dict[RunName, History] = {}
    with track(len(jobs), "train") as advance:
        for done, (place, (folder, history)) in enumerate(run_jobs([(params, job) for job in jobs], sources, run_job), 1):
            job = jobs[place]
            with use_folder(folder.parent):
                if not (folder / HISTORY).is_file():  # `cache gc` came in between
                    folder, history = run_job(params, sources, job)
                with atomic_folder(out / job.name.path) as made:
                    copy_run(folder, made)
            histories[job.name] = history
            for tracker in trackers:
                tracker.tell(job.name.path, flatten(choose_parameters(params, job.variant)), history)
            advance(1)
            if on_run is not None:
                on_run(job.name.path, done, len(jobs))
    write_text(out / "history.csv", _format_history(histories))
    write_shares(out, choose_shares(params.training.ensemble.linear) if params.training.ensemble else None)
    return [out / job.name.path for job in jobs]


def _train_nothing(out: Path) -> list[Path]:
    """What is left of a run without labels."""
    log.info("protocol none: there is nothing to learn from; the features are in features/, and index.h5 joins them")
    _clear(out, set())
    write_text(out / "history.csv", "variant,fold,seed\n")
    write_shares(out, None)
    return []


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
