"""One training run: phases of epochs over resident tensors, selection on validation, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Targets
from pipeline.models.model import EmotionModel
from pipeline.models.pooled import PooledEncoder, Standardise
from pipeline.models.spec import ModelSpec
from pipeline.params import Params, Phase

from .adjustment import choose_shift, log_prior
from .course import Course, prepare
from .curricula.roll import call_roll
from .data.dataset import Dataset
from .data.views import predict_view, predict_views
from .mixup import mix_inputs, mix_targets
from .objective import Objective
from .optimiser import build_optimiser
from .plan import Plan, recall_losses
from .schedules import Moment
from .selection import check_selection, name_measure, score
from .standardise import fit_statistics
from .state import Progress, read_progress, read_state, restore_state, save_state

#: Clips predicted at a time.
BATCH = 256


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
        data: as the model reads it, on the device to train on.
        state: file the run is saved to (at most every `every` seconds) and resumed from, bit by bit.
        on_epoch: called after each epoch, after saving.

    Returns:
        The model with the weights of the last phase's best epoch (its last with `select: last`), in evaluation mode, and the
        run's record.

    Raises:
        StoreError: no labelled training clip, or no labelled validation clip.
        ParamsError: the selection metric needs a head the task does not have; a part or option is unknown.
    """
    check_selection(params.training.select, spec)
    check_mixup(params, spec)
    course = prepare(spec, data, params)
    device = data.emotion.device
    phases = params.training.phases or (Phase(),)
    # Dropout draws from torch's own generators; the caller's are put back afterwards.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        model = EmotionModel(spec).to(device)
        _check_parts(model, params)
        fit_statistics(pooled_parts(model), spec, data, course.train, params)
        plan = Plan.make(params, model, call_roll(data, course.train, params.training.batch_size, seed))
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
            for _ in _run_phase(model, phase, course, plan, optimiser, order, progress):
                if state is not None and time.monotonic() - clock >= every:
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
    if len(model.spec.streams) < len(params.streams):
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


def _lose_mixed(
    model: EmotionModel, objective: Objective, inputs: Inputs, targets: Targets, alpha: float, order: torch.Generator
) -> Tensor:
    """The loss of pairs of clips mixed by one share of Beta(α, α)."""
    partner = torch.randperm(len(targets.weight), generator=order).to(targets.weight.device)
    share = torch.distributions.Beta(alpha, alpha).sample().to(targets.weight.device)
    outputs = model(mix_inputs(inputs, partner, share))
    return share * objective(outputs, targets) + (1 - share) * objective(outputs, mix_targets(targets, partner))


def _run_phase(
    model: EmotionModel,
    phase: Phase,
    course: Course,
    plan: Plan,
    optimiser: torch.optim.Optimizer,
    order: torch.Generator,
    progress: Progress,
) -> Iterator[None]:
    """Epochs until the last, or until patience ends; yields after each."""
    training, device = course.params.training, course.data.emotion.device
    epochs = phase.epochs or training.epochs
    objective = Objective(phase.loss or course.params.loss, course.spec).to(device)
    objective.observe(course.targets(course.train))
    if training.mixup and objective.keeps:
        raise ParamsError("training.mixup leaves no clip as it is for the queue of a loss; set its options.queue to 0.")
    objective.recall(progress.memory)
    patience = float("inf") if training.patience is None or training.select == "last" else training.patience
    while progress.epoch < epochs and progress.waited < patience:
        model.train()
        total, seen = 0.0, 0.0
        if progress.weight is None:
            progress.weight = plan.weigh(progress.epoch, course.targets(course.train), None)
        losses = recall_losses(progress.history, progress.epoch)
        batches = list(course.sample(order, progress.weight))
        for i, places in enumerate(batches):
            plan.step(model, optimiser, Moment(progress.epoch, i, len(batches), epochs, losses))
            weight = None if progress.weight is None else progress.weight[places]
            rows = course.train[places]
            inputs, targets = course.draw(rows, weight, order)
            if training.mixup:
                loss = _lose_mixed(model, objective, inputs, targets, float(training.mixup), order)
            else:
                outputs = model(inputs)
                loss = objective(outputs, targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimiser.step()
            if not training.mixup:
                objective.remember(outputs, targets)
            total, seen = total + float(loss.detach()) * len(rows), seen + len(rows)
        _validate(model, objective, course, progress, phase.name, total / seen)
        if progress.epoch <= plan.spared:
            progress.waited = 0
        last = predict_view(model, course.data, course.train, size=BATCH) if plan.looks else None
        progress.weight = plan.weigh(progress.epoch, course.targets(course.train), last)
        progress.memory = objective.memory()
        yield


@torch.inference_mode()
def _validate(
    model: EmotionModel, objective: Objective, course: Course, progress: Progress, phase: str, train_loss: float
) -> None:
    """Score the epoch, keep what was learned when it is the best so far."""
    select, refit = course.params.training.select, course.params.training.refit
    measure = name_measure(select, course.spec)
    loss = value = float("nan")
    # All of validation as one batch, so that CCC is over all of it and not a mean over batches.
    if not refit:
        outputs, targets = predict_view(model, course.data, course.val, size=BATCH), course.targets(course.val)
        loss = float(objective(outputs, targets))
        value = score(measure, outputs, targets, loss)
    progress.epoch += 1
    progress.history.append(
        {"phase": phase, "epoch": progress.epoch, "train_loss": train_loss, "val_loss": loss, f"val_{measure}": value}
    )
    # Few validation clips make equal scores common: the lower loss decides.
    if select == "last" or (value, -loss) > progress.key or not progress.best:
        progress.key, progress.best_epoch, progress.waited = (value, -loss), progress.epoch, 0
        progress.best = {name: tensor.clone() for name, tensor in model.trainable().items()}
    else:
        progress.waited += 1
