"""A run as a piece of work: what decides its result, and its place in the cache.

Runs live in the clip cache's folder (`runs/<key>/`), where an interrupted run is continued and a finished one is
reused. The key is the hash of what decides the result: features, labels the fold may see, roles, parameters, code, the
version of torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.code import code_digest
from pipeline.devices import pick_devices
from pipeline.models.model import Model
from pipeline.models.registry import CONTEXTS, FUSIONS, HEADS, LOSSES, TEMPORALS
from pipeline.models.spec import ModelSpec
from pipeline.params import Params
from pipeline.runs.answers import are_kept
from pipeline.runs.folders import HISTORY, RunName
from pipeline.runs.run import save_run
from pipeline.storage.atomic import to_finite, write_json
from pipeline.storage.clip_cache import digest, root
from pipeline.storage.folder_lock import use_alone, use_folder
from pipeline.threads import computing

from .answers.ask import keep_answers, name_code
from .course import build_sampler
from .curricula.base import CURRICULA
from .curricula.roll import fingerprint
from .data.dataset import Dataset
from .data.hiding import hide_labels
from .data.windows import choose_limit
from .linear import fit_linear
from .loop import fit
from .sources import History, Sources
from .state import Progress
from .variants import Variant, specify_model


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
        data = load_job(params, sources, job, device)
        spec = specify_model(params, job.variant, data)
        identity = identify(params, job, data, spec, device)
        with use_folder(root() / "runs" / digest(identity)) as cached:
            if not (cached / "run" / HISTORY).is_file():
                write_json(cached / "identity.json", identity)
                _fit_and_save(cached, params, job, data, spec, every, on_epoch)
            with use_alone(cached / "answers.lock"):  # who reads the run's folder the while sees no answers, or these
                keep_answers(cached / "run", load_fold(params, sources, job.fold, device))
            return cached / "run", json.loads((cached / "run" / HISTORY).read_text(encoding="utf-8"))


def _fit_and_save(
    cached: Path,
    params: Params,
    job: Job,
    data: Dataset,
    spec: ModelSpec,
    every: float,
    on_epoch: Callable[[Progress], None] | None,
) -> None:
    model: Model
    read = data.read(spec.streams)
    if job.variant.linear:
        model, progress = fit_linear(spec, read, params)
    else:
        model, progress = fit(spec, read, params, job.seed, state=cached / "state.pt", every=every, on_epoch=on_epoch)
    normalisation = {name: (data.streams[name].mean, data.streams[name].std) for name in job.variant.streams}
    config = describe_run(params, job, data, progress)
    save_run(cached / "run", model, normalisation, config, progress.history)
    (cached / "state.pt").unlink(missing_ok=True)


def is_finished(params: Params, sources: Sources, job: Job) -> bool:
    """Whether the run is in the cache, and what it was asked."""
    device = pick_devices(params.run.device)[0]
    data = load_job(params, sources, job, device)
    identity = identify(params, job, data, specify_model(params, job.variant, data), device)
    folder = root() / "runs" / digest(identity) / "run"
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


def choose_parameters(params: Params, variant: Variant) -> dict:
    """The parameters that decide a run."""
    if variant.linear and params.training.linear:
        return {
            "linear": params.training.linear.model_dump(mode="json"),
            **params.training.model_dump(mode="json", include={"threads", "normalise"}),
            **(params.training.model_dump(mode="json", include={"tau", "select"}) if params.training.tau else {}),
            "task": params.task.model_dump(mode="json"),
            "max_tokens": choose_limit(params),
            **params.temporal.model_dump(mode="json", include={"weights"}),
        }
    training = params.training.model_dump(mode="json", exclude={"seeds", "unimodal", "threads", "linear", "rotate", "ensemble"})
    return {
        "training": training | {"threads": params.training.threads},
        "loss": {name: term.model_dump(mode="json") for name, term in params.loss.items()},
        "task": params.task.model_dump(mode="json"),
        "temporal": params.temporal.model_dump(mode="json"),
        "fusion": variant.fusion.model_dump(mode="json"),
    }


def identify(params: Params, job: Job, data: Dataset, spec: ModelSpec, device: str) -> dict:
    """All that decides the run, as JSON values."""
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
        "code": code_digest(*_list_modules(params, spec)),
        "torch": torch.__version__,
        "device": device.partition(":")[0],
    }


def _list_modules(params: Params, spec: ModelSpec) -> list[str]:
    """What decides a run; for a network also the modules of the parts chosen by name, which no import names."""
    if spec.linear:
        return ["pipeline.training.linear", "pipeline.runs.run"]
    terms = [params.loss, *(phase.loss for phase in params.training.phases if phase.loss)]
    parts: list[type] = [FUSIONS.find(spec.fusion.name), TEMPORALS.find(spec.temporal.name)]
    parts += [CONTEXTS.find(spec.context.name)] if spec.context else []
    parts += [HEADS.find(output.name) for output in spec.outputs.values()]
    parts += [LOSSES.find(term.name) for named in terms for term in named.values()]
    parts += [CURRICULA.find(params.training.curriculum.name)] if params.training.curriculum else []
    parts += [type(build_sampler(params))]
    return ["pipeline.training.loop", "pipeline.runs.run", *sorted({part.__module__ for part in parts})]


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
