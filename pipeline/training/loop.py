"""One training run: phases of epochs over resident tensors, selection on validation, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError, StoreError
from pipeline.models.batch import Targets
from pipeline.models.model import EmotionModel, ModelSpec
from pipeline.params import Params, Part, Phase
from pipeline.parts import read_options
from pipeline.runs.predict import predict_batches

from .curricula.base import CURRICULA, Curriculum
from .data.dataset import Dataset
from .objective import Objective
from .optimiser import build_optimiser, set_rate, warmup_cosine
from .samplers.base import SAMPLERS, Sampler
from .selection import check_selection, score
from .state import Progress, read_progress, read_state, restore_state, save_state


@dataclass(frozen=True)
class Course:
    """What stays the same through a run.

    Attributes:
        train, val: (n,) rows of the usable clips. turns: earlier turns each clip is given.
    """

    params: Params
    data: Dataset
    spec: ModelSpec
    train: Tensor
    val: Tensor
    turns: int
    sampler: Sampler

    def targets(self, rows: Tensor, weight: Tensor | None = None) -> Targets:
        """Truth of the clips at `rows`."""
        return self.data.targets(rows, self.spec.base, weight)

    def sample(self, order: torch.Generator) -> Iterator[Tensor]:
        """Places in `train`, batch by batch, for one epoch."""
        yield from self.sampler.sample(self.targets(self.train), self.data.turns[self.train, 0], order)


def fit(
    spec: ModelSpec,
    data: Dataset,
    params: Params,
    seed: int,
    *,
    state: Path | None = None,
    every: float = 10.0,
    on_epoch: Callable[[Progress], None] | None = None,
) -> tuple[EmotionModel, Progress]:
    """Train on the fold's `train` clips, select on `val`; `test` clips are not touched.

    Args:
        data: resident on the device to train on.
        state: file the run is saved to (at most every `every` seconds) and resumed from, bit by bit.
        on_epoch: called after each epoch, after saving.

    Returns:
        The model with the weights of the last phase's best epoch, in evaluation mode, and the run's record.

    Raises:
        StoreError: no labelled training clip, or no labelled validation clip.
        ParamsError: the selection metric needs a head the task does not have; a part or option is unknown.
    """
    check_selection(params.training.select, spec)
    course = _prepare(spec, data, params)
    device = data.emotion.device
    phases = params.training.phases or (Phase(),)
    # Dropout draws from torch's own generators; the caller's are put back afterwards.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        model = EmotionModel(spec).to(device)
        _check_parts(model, params)
        saved = read_state(state)
        progress = read_progress(saved, device) if saved else Progress()
        clock = time.monotonic()
        for number, phase in list(enumerate(phases))[progress.phase :]:
            model.freeze(phase.freeze)
            optimiser = build_optimiser(model, params.training, float(phase.lr or params.training.lr))
            if saved:
                restore_state(saved, model, optimiser, order)
                saved = None
            else:
                progress.begin_phase(number)
            for _ in _run_phase(model, phase, course, optimiser, order, progress):
                if state is not None and time.monotonic() - clock >= every:
                    save_state(state, model, optimiser, order, progress)
                    clock = time.monotonic()
                if on_epoch is not None:
                    on_epoch(progress)
            model.load_trainable(progress.best)
    model.freeze(())
    return model.eval(), progress


def _check_parts(model: EmotionModel, params: Params) -> None:
    """Parts that are named must be there; a variant of fewer streams may lack what the whole has."""
    if len(model.spec.streams) < len(params.streams):
        return
    for part in params.training.rates:
        model.check_part(part, "training.rates")
    for phase in params.training.phases:
        for part in phase.freeze:
            model.check_part(part, "training.phases.freeze")


def _prepare(spec: ModelSpec, data: Dataset, params: Params) -> Course:
    names = tuple(spec.streams)
    usable = data.labelled() & data.present(names)
    train, val = (part[usable[part]] for part in (data.rows("train"), data.rows("val")))
    for part, role in ((train, "training"), (val, "validation")):
        if not len(part):
            raise StoreError(
                f"fold {data.fold} has no labelled {role} clip with {' or '.join(names)}; "
                "see `protocol` in params.yaml and the coverage that `index` prints."
            )
    return Course(params, data, spec, train, val, spec.turns, build_sampler(params))


def build_sampler(params: Params) -> Sampler:
    """The sampler chosen; by default clips, or dialogues where clips see earlier turns, which are then encoded once.

    Raises:
        ParamsError: an unknown sampler or option, or one that splits the dialogues of a context.
    """
    chosen = params.training.sampler or Part(name="dialogues" if params.context else "clips")
    part = SAMPLERS.find(chosen.name)
    if params.context and not part.whole:
        raise ParamsError(
            f"training.sampler: {chosen.name} splits dialogues, and there is a context; use dialogues, or context none."
        )
    options = read_options(part.Options, chosen.options, "training.sampler.options")
    return part(params.training.batch_size, options)


def _run_phase(
    model: EmotionModel,
    phase: Phase,
    course: Course,
    optimiser: torch.optim.Optimizer,
    order: torch.Generator,
    progress: Progress,
) -> Iterator[None]:
    """Epochs until the last, or until patience ends; yields after each."""
    training, device = course.params.training, course.data.emotion.device
    epochs = phase.epochs or training.epochs
    objective = Objective(phase.loss or course.params.loss, course.spec).to(device)
    objective.observe(course.targets(course.train))
    objective.recall(progress.memory)
    curriculum = _read_curriculum(course.params)
    while progress.epoch < epochs and progress.waited < training.patience:
        model.train()
        total, seen = 0.0, 0.0
        if progress.weight is None and curriculum is not None:
            progress.weight = curriculum.weigh(progress.epoch, course.targets(course.train), None)
        batches = list(course.sample(order))
        for i, places in enumerate(batches):
            step, steps = progress.epoch * len(batches) + i, epochs * len(batches)
            set_rate(optimiser, warmup_cosine(step, steps, training.warmup))
            weight = None if progress.weight is None else progress.weight[places]
            rows = course.train[places]
            outputs = model(course.data.batch(rows, tuple(course.spec.streams), course.turns))
            targets = course.targets(rows, weight)
            loss = objective(outputs, targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimiser.step()
            objective.remember(outputs, targets)
            total, seen = total + float(loss.detach()) * len(rows), seen + len(rows)
        _validate(model, objective, course, progress, phase.name, total / seen)
        if curriculum is not None:
            last = predict_batches(model, _batches(course, course.train)) if curriculum.looks else None
            progress.weight = curriculum.weigh(progress.epoch, course.targets(course.train), last)
        progress.memory = objective.memory()
        yield


def _read_curriculum(params: Params) -> Curriculum | None:
    chosen = params.training.curriculum
    if chosen is None:
        return None
    part = CURRICULA.find(chosen.name)
    return part(read_options(part.Options, chosen.options, "training.curriculum.options"))


def _batches(course: Course, rows: Tensor) -> Iterator:
    return course.data.batches(rows, tuple(course.spec.streams), course.turns, 256)


@torch.inference_mode()
def _validate(
    model: EmotionModel, objective: Objective, course: Course, progress: Progress, phase: str, train_loss: float
) -> None:
    """Score the epoch, keep what was learned when it is the best so far."""
    select = course.params.training.select
    # All of validation as one batch, so that CCC is over all of it and not a mean over batches.
    outputs, targets = predict_batches(model, _batches(course, course.val)), course.targets(course.val)
    loss = float(objective(outputs, targets))
    value = score(select, outputs, targets, loss)
    progress.epoch += 1
    progress.history.append(
        {"phase": phase, "epoch": progress.epoch, "train_loss": train_loss, "val_loss": loss, f"val_{select}": value}
    )
    # Few validation clips make equal scores common: the lower loss decides.
    if (value, -loss) > progress.key or not progress.best:
        progress.key, progress.best_epoch, progress.waited = (value, -loss), progress.epoch, 0
        progress.best = {name: tensor.clone() for name, tensor in model.trainable().items()}
    else:
        progress.waited += 1
