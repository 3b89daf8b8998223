"""Every run of the parameters: trained, or found by its own key, and asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.params import Params
from pipeline.params.base import flatten
from pipeline.progress import track
from pipeline.runs.folders import HISTORY, RunName, clear, copy_run
from pipeline.storage.atomic import atomic_folder
from pipeline.storage.folder_lock import use_folder

from .answers.ask import name_code
from .data.labels import check_frames, check_labels, fold_numbers
from .identity import choose_parameters
from .jobs import Job, run_job
from .recall import note_runs
from .schedule import run_jobs
from .sources import History, Sources
from .trackers.base import Tracker
from .variants import list_variants


def train_every(
    params: Params,
    sources: Sources,
    out: Path,
    trackers: Sequence[Tracker] = (),
    on_run: Callable[[str, int, int], None] | None = None,
    inputs: str | None = None,
) -> dict[RunName, History]:
    """Put all runs below `out`; nothing else stays there.

    Args:
        on_run: see `stage.train`. inputs: what the runs are remembered by, see `recall`.

    Returns:
        In the order of variants, of each fold.

    Raises:
        StoreError, ParamsError, DeviceError: see `fit`, `Dataset.load`, `pick_devices`.
    """
    check_labels(params, sources.index, sources.manifest, sources.folds)
    check_frames(params, sources.annotations)
    jobs = [
        Job(variant, fold, seed)
        for fold in fold_numbers(sources.folds)
        for variant in list_variants(params)
        for seed in range(1 if variant.once else params.training.seeds)
    ]
    clear(out, {job.name.path for job in jobs})
    found: dict[RunName, tuple[Path, History]] = {}
    with track(len(jobs), "train") as advance:
        for done, (place, (folder, history)) in enumerate(run_jobs([(params, job) for job in jobs], sources, run_job), 1):
            job = jobs[place]
            with use_folder(folder.parent):
                if not (folder / HISTORY).is_file():  # `cache gc` came in between
                    folder, history = run_job(params, sources, job)
                with atomic_folder(out / job.name.path) as made:
                    copy_run(folder, made)
            found[job.name] = folder, history
            for tracker in trackers:
                tracker.tell(job.name.path, flatten(choose_parameters(params, job.variant)), history)
            advance(1)
            if on_run is not None:
                on_run(job.name.path, done, len(jobs))
    ordered = {job.name: found[job.name] for job in jobs}
    if inputs is not None:
        note_runs(inputs, name_code(), {name: folder for name, (folder, _) in ordered.items()})
    return {name: history for name, (_, history) in ordered.items()}
