"""One training run: phases of epochs over resident tensors, selection on validation, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.errors import ParamsError
from pipeline.models.model import EmotionModel
from pipeline.models.pooled import PooledEncoder, Standardise
from pipeline.models.spec import ModelSpec
from pipeline.params import Params, Phase
from pipeline.runs.language import build

from .adjustment import choose_shift, log_prior
from .course import Course, prepare
from .data.dataset import Dataset
from .data.views import predict_views
from .learner import Learner
from .optimiser import build_optimiser
from .phases import settle
from .selection import check_selection, name_measure
from .standardise import fit_statistics, observe_words
from .state import Progress, read_progress, read_state, restore_state, save_state
from .team import ALONE, Team


def fit(
    spec: ModelSpec,
    data: Dataset,
    params: Params,
    seed: int,
    *,
    state: Path | None = None,
    every: float = 10.0,
    on_epoch: Callable[[Progress], None] | None = None,
    team: Team = ALONE,
) -> tuple[EmotionModel, Progress]:
    """Train on the fold's `train` clips, select on `val`; `test` clips are not touched.

    Args:
        data: as the model reads it, on the device to train on.
        state: file the run is saved to (at most every `every` seconds) and resumed from, bit by bit.
        on_epoch: called after each epoch, after saving. team: the processes that learn the run; the first saves.

    Returns:
        The model with the weights of the last phase's best epoch (its last with `select: last`), in evaluation mode, and the
        run's record.

    Raises:
        StoreError: no labelled training clip, or no labelled validation clip.
        ParamsError: the selection metric needs a head the task does not have; a part or option is unknown.
    """
    check_selection(params.training.select, spec)
    phases = params.training.phases or (Phase(),)
    settled = [settle(params, phase, spec) for phase in phases]
    check_mixup(params, spec)
    course = prepare(spec, data, params)
    device = data.emotion.device
    # Dropout draws from torch's own generators; the caller's are put back afterwards.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        built = build(spec)
        assert isinstance(built, EmotionModel), "the linear model is fitted elsewhere"
        team.prepare(built)
        model = built.to(device)
        _check_parts(model, params)
        fit_statistics(pooled_parts(model), spec, data, course.train, params)
        observe_words(model, data, course.train)
        saved = read_state(state)
        progress = read_progress(saved, device) if saved else Progress()
        team.wait()  # the first process is the only one that writes what all have read
        clock = time.monotonic()
        for number, phase in list(enumerate(phases))[progress.phase :]:
            model.freeze(phase.freeze)
            optimiser = build_optimiser(model, settled[number].training)
            if saved:
                restore_state(saved, model, optimiser, order)
                saved = None
            else:
                progress.begin_phase(number)
            learner = Learner.begin(phase.name, spec, data, settled[number], model, optimiser, order, progress, seed, team)
            for _ in learner.run():
                if state is not None and team.first and time.monotonic() - clock >= every:
                    save_state(state, model, optimiser, order, progress)
                    clock = time.monotonic()
                if on_epoch is not None:
                    on_epoch(progress)
            model.load_trainable(progress.best)
        _adjust(model, course)
    model.freeze(())
    return model.eval(), progress


def _check_parts(model: EmotionModel, params: Params) -> None:
    """Parts that are named must be there; a variant of fewer streams may lack what the whole has."""
    if len(model.spec.streams) < len(params.inputs):
        return
    for step in params.training.dropout:
        model.check_part(step.part, "training.dropout")
    for part in params.training.rates:
        model.check_part(part, "training.rates")
    for phase in params.training.phases:
        for part in phase.freeze:
            model.check_part(part, "training.phases.freeze")


def pooled_parts(model: EmotionModel) -> dict[str, Standardise]:
    """What standardises the streams that are read as one row."""
    return {name: one.standardise for name, one in model.encoders.items() if isinstance(one, PooledEncoder)}


def check_mixup(params: Params, spec: ModelSpec) -> None:
    """Raise unless clips can be mixed, where they are to be.

    Raises:
        ParamsError: clips of several tokens, or with a history, cannot be.
    """
    if params.training.mixup and (any(spec.turns) or any(stream.pooling == "none" for stream in spec.streams.values())):
        raise ParamsError("training.mixup mixes clips of one row: set temporal.pooling to statistics, and no context.")


def _adjust(model: EmotionModel, course: Course) -> None:
    """Choose the shift of the emotion logits on validation, where there are candidates."""
    training = course.params.training
    if training.tau and "emotion" in course.spec.outputs:
        prior = log_prior(course.data.emotion[course.train], len(course.spec.classes))
        logits = predict_views(model, course.data, course.val)["emotion"]
        choose_shift(model, prior, logits, course.targets(course.val), training.tau, name_measure(training.select, course.spec))
