"""The runs of a study: the jobs of `train`, from the same cache, and what each predicts for held-out clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.errors import ParamsError, StoreError
from pipeline.params import Params
from pipeline.params.learning import TRANSDUCTIVE
from pipeline.runs.answers import Answers, read_answers
from pipeline.runs.folders import read_config
from pipeline.training.data.labels import fold_numbers
from pipeline.training.jobs import Job, is_finished, run_job
from pipeline.training.schedule import run_jobs
from pipeline.training.sources import Sources

from .settings import Setting


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        predictions: of the fold's held-out clips, see `Answers.whole`; None when it could not be run.
        answers: what the run says, over time too.
        classes, dimensions: that it predicts.
        score: of the checkpoint on validation; None where nothing was selected.
        shared: `speaker` or `session` where features were normalised within each, with unlabelled held-out clips; else empty.
        trained: it was not in the cache.
        reason: why it could not be run.
    """

    predictions: pl.DataFrame | None = None
    answers: Answers | None = None
    classes: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    score: float | None = None
    shared: str = ""
    trained: bool = False
    reason: str = ""


def attempt(params: Params, sources: Sources, job: Job) -> Outcome:
    """A run, and its predictions; a setting that cannot be run says why, and the others go on."""
    try:
        trained = not is_finished(params, sources, job)
        folder = run_job(params, sources, job)[0]
    except (ParamsError, StoreError) as error:
        return Outcome(reason=str(error))
    said, config = read_answers(folder), read_config(folder)
    found = said.whole
    if not len(found):
        raise StoreError(f"fold {job.fold} has no test clip; see `protocol` in params.yaml.")
    found = found.with_columns(fold=pl.lit(job.fold), seed=pl.lit(job.seed))
    classes, dimensions = (tuple(config["model"][name]) for name in ("classes", "dimensions"))
    shared = config["normalise"]
    shared = shared if shared in TRANSDUCTIVE else ""
    return Outcome(found, said, classes, dimensions, config["score"], shared, trained)


def list_jobs(setting: Setting, folds: Sequence[int]) -> list[Job]:
    """Its runs: each fold with each seed; the linear model and the student have no seeds."""
    seeds = 1 if setting.variant.once else setting.seeds or setting.params.training.seeds
    return [Job(setting.variant, fold, seed) for fold in folds for seed in range(seeds)]


def run_settings(
    settings: Sequence[Setting], sources: Sources, advance: Callable[[int], None] = lambda _: None
) -> list[list[Outcome]]:
    """The runs of each setting; what several settings share is run once.

    Args:
        advance: called with 1 after each run.
    """
    tasks, places = plan(settings, sources)
    outcomes: dict[int, Outcome] = {}
    for place, outcome in run_jobs(tasks, sources, attempt) if tasks else ():
        outcomes[place] = outcome
        advance(1)
    return [[outcomes[place] for place in mine] for mine in places]


def plan(settings: Sequence[Setting], sources: Sources) -> tuple[list[tuple[Params, Job]], list[list[int]]]:
    """The distinct runs, those of one setting and fold together, and which of them belong to each setting."""
    folds = fold_numbers(sources.folds)
    known: dict[tuple, int] = {}
    tasks: list[tuple[Params, Job]] = []
    places: list[list[int]] = []
    for setting in settings:
        mine = []
        text = setting.params.model_dump_json()
        for job in [] if setting.skipped else list_jobs(setting, folds):
            key = (text, job.variant.streams, job.name)
            if key not in known:
                known[key] = len(tasks)
                tasks.append((setting.params, job))
            mine.append(known[key])
        places.append(mine)
    return tasks, places


def count_missing(settings: Sequence[Setting], sources: Sources) -> tuple[int, int]:
    """How many runs there are, and how many are not in the cache yet."""
    tasks, _ = plan(settings, sources)
    missing = 0
    for params, job in tasks:
        try:
            missing += not is_finished(params, sources, job)
        except (ParamsError, StoreError):
            continue  # its row will say why
    return len(tasks), missing
