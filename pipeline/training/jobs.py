"""A run as a piece of work: what decides its result, and its place in the cache.

Runs live in the clip cache's folder (`runs/<key>/`), where an interrupted run is continued and a finished one is
reused. The key is the hash of what decides the result: features, labels the fold may see, roles, parameters, code, the
version of torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from pipeline.code import code_digest
from pipeline.devices import pick_devices
from pipeline.models.model import Model
from pipeline.models.spec import ModelSpec
from pipeline.params import Params
from pipeline.runs.answers import are_kept
from pipeline.runs.ensemble import choose_shares
from pipeline.runs.folders import HISTORY, RunName
from pipeline.runs.run import save_run
from pipeline.storage.atomic import to_finite, write_json
from pipeline.storage.clip_cache import digest, root
from pipeline.storage.folder_lock import use_alone, use_folder
from pipeline.threads import computing

from .answers.ask import keep_answers, name_code
from .curricula.roll import fingerprint
from .data.dataset import Dataset
from .data.hiding import hide_labels
from .data.windows import choose_limit
from .identity import choose_parameters, list_modules
from .linear import fit_linear
from .loop import fit
from .sources import History, Sources
from .state import Progress
from .student import average_answers, settle_student
from .team import Team
from .together import choose_team
from .variants import Variant, list_variants, specify_model


@dataclass(frozen=True)
class Job:
    """One run."""

    variant: Variant
    fold: int
    seed: int

    @property
    def name(self) -> RunName:
        """Variant, fold and seed."""
        return RunName(self.variant.name, self.fold, self.seed)


def run_job(
    params: Params,
    sources: Sources,
    job: Job,
    *,
    every: float = 10.0,
    on_epoch: Callable[[Progress], None] | None = None,
) -> tuple[Path, History]:
    """One run, from the cache when it is finished there, continued when it was interrupted; asked, if it was not.

    Args:
        every: seconds between saves of an unfinished run.

    Returns:
        The run's folder in the cache and its history.
    """
    device = pick_devices(params.run.device)[0]
    with computing(params.training.threads):
        work = _prepare(params, sources, job, device)
        with use_folder(root() / "runs" / digest(work.identity)) as cached:
            if not (cached / "run" / HISTORY).is_file():
                write_json(cached / "identity.json", work.identity)
                _fit_and_save(cached, _teach(work, sources, job, device), sources, job, every, on_epoch)
            with use_alone(cached / "answers.lock"):  # who reads the run's folder the while sees no answers, or these
                keep_answers(cached / "run", load_fold(params, sources, job.fold, device))
            return cached / "run", json.loads((cached / "run" / HISTORY).read_text(encoding="utf-8"))


class _Work(NamedTuple):
    """What a run is made of, and what decides it. The student's parameters are others than those given."""

    given: Params
    params: Params
    data: Dataset
    spec: ModelSpec
    identity: dict


def _prepare(params: Params, sources: Sources, job: Job, device: str) -> _Work:
    data = load_job(params, sources, job, device)
    members = {digest(_prepare(params, sources, one, device).identity): worth for one, worth in list_members(params, job)}
    own = settle_student(params) if job.variant.student else params
    spec = specify_model(own, job.variant, data)
    return _Work(params, own, data, spec, identify(own, job, data, spec, device, members))


def list_members(params: Params, job: Job) -> list[tuple[Job, float]]:
    """Whom a student learns from, and what each is worth in the ensemble: runs of its own fold. Empty for other runs."""
    if not job.variant.student or params.training.ensemble is None:
        return []
    shares, found = choose_shares(params.training.ensemble.linear), []
    for variant in (one for one in list_variants(params) if one.name in shares):
        seeds = 1 if variant.once else params.training.seeds
        found += [(Job(variant, job.fold, seed), shares[variant.name] / seeds) for seed in range(seeds)]
    return found


def _teach(work: _Work, sources: Sources, job: Job, device: str) -> _Work:
    """The same with what the members say of the clips; for a run without members as it is."""
    members = {run_job(work.given, sources, one)[0]: worth for one, worth in list_members(work.given, job)}
    told = average_answers(members, load_fold(work.given, sources, job.fold, device))
    return work._replace(data=replace(work.data, told=told))


def _fit_and_save(
    cached: Path, work: _Work, sources: Sources, job: Job, every: float, on_epoch: Callable[[Progress], None] | None
) -> None:
    model: Model
    given, params, data, spec, _ = work
    read = data.read(spec.streams)
    if job.variant.linear:
        model, progress = fit_linear(spec, read, params)
    else:
        state = cached / "state.pt"
        with choose_team(given, job.variant, _help, sources, job, state) as team:
            model, progress = fit(spec, read, params, job.seed, state=state, every=every, on_epoch=on_epoch, team=team)
    normalisation = {name: (data.streams[name].mean, data.streams[name].std) for name in job.variant.streams}
    config = describe_run(params, job, data, progress)
    save_run(cached / "run", model, normalisation, config, progress.history)
    (cached / "state.pt").unlink(missing_ok=True)


def _help(team: Team, device: str, params: Params, sources: Sources, job: Job, state: Path) -> None:
    """The part of another process than the first in learning a run; see `gather_team`."""
    with computing(params.training.threads):
        work = _teach(_prepare(params, sources, job, device), sources, job, device)
        fit(work.spec, work.data.read(work.spec.streams), work.params, job.seed, state=state, team=team)


def is_finished(params: Params, sources: Sources, job: Job) -> bool:
    """Whether the run is in the cache, and what it was asked."""
    device = pick_devices(params.run.device)[0]
    folder = root() / "runs" / digest(_prepare(params, sources, job, device).identity) / "run"
    return (folder / HISTORY).is_file() and are_kept(folder, name_code())


@functools.lru_cache(maxsize=1)
def _load_fold(params: str, sources: Sources, stamps: tuple, fold: int, device: str) -> Dataset:
    return Dataset.load(
        sources.index,
        sources.manifest,
        sources.folds,
        Params.model_validate_json(params),
        fold,
        annotations=sources.annotations,
        device=device,
    )


def load_fold(params: Params, sources: Sources, fold: int, device: str) -> Dataset:
    """The fold's data; the last one stays in memory, as runs of one fold follow each other."""
    paths = [Path(path) for path in vars(sources).values()]
    stamps = tuple((p.stat().st_mtime_ns, p.stat().st_size) if p.is_file() else None for p in paths)
    return _load_fold(params.model_dump_json(), sources, stamps, fold, device)


def load_job(params: Params, sources: Sources, job: Job, device: str) -> Dataset:
    """The fold's data with the validation part, and the labels, that are the job's.

    The linear model selects nothing and needs no part of its own.
    """
    data = load_fold(params, sources, job.fold, device)
    data = data.rotate(job.seed) if params.training.rotate and not job.variant.linear else data
    share = float(params.training.labels)
    return data if share == 1 else hide_labels(data, share, job.seed)


def identify(
    params: Params, job: Job, data: Dataset, spec: ModelSpec, device: str, members: Mapping[str, float] | None = None
) -> dict:
    """All that decides the run, as JSON values.

    Args:
        members: digest of the identity of each run that a student learns from, and what it is worth.
    """
    read = (*job.variant.streams, *(() if job.variant.linear else params.teachers))
    return {
        "params": choose_parameters(params, job.variant),
        "fold": job.fold,
        "seed": job.seed,
        "part": data.part,
        "variant": job.variant.name,
        "model": spec.model_dump(mode="json"),
        "streams": {name: data.streams[name].facts for name in read},
        "encoders": {name: params.streams[name].model_dump(mode="json") for name in read},
        "labels": data.fingerprint(job.variant.streams),
        "curriculum": None if job.variant.linear else fingerprint(params, data),
        "code": code_digest(*list_modules(params, spec), *(["pipeline.training.student"] if members else ())),
        "torch": torch.__version__,
        "device": device.partition(":")[0],
        **({"members": dict(members)} if members else {}),
    }


def describe_run(params: Params, job: Job, data: Dataset, progress: Progress) -> dict:
    """What `config.json` says besides the model's shape."""
    return {
        "variant": job.variant.name,
        "fold": job.fold,
        "seed": job.seed,
        "part": data.part,
        "select": params.training.select,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "score": to_finite(progress.key[0]),
        "max_tokens": choose_limit(params),
        "normalise": params.training.normalise,
        "params": choose_parameters(params, job.variant),
        "streams": {name: data.streams[name].facts for name in job.variant.streams},
        "encoders": {name: params.streams[name].model_dump(mode="json") for name in job.variant.streams},
        "clips": {role: int(data.labelled()[data.rows(role)].sum()) for role in ("train", "val")},
    }
