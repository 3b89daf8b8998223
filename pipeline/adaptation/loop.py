"""Epochs of adaptation: clips are read by workers, the encoder learns on the device, validation clips say when it is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import metrics
from pipeline.errors import ParamsError, UserError
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Prepared
from pipeline.models.batch import Outputs, Targets
from pipeline.params import Adapt

from .clips import Clips
from .learner import OVER_TIME, Learner, calculating, make_targets
from .reading import Seen
from .state import Progress, collect, load_state, put_back, save_state


@dataclass
class Course:
    """What an adaptation goes through.

    Attributes:
        seen: the clips as they are read.
    """

    encoder: Encoder
    learner: Learner
    clips: Clips
    adapt: Adapt
    seen: Seen
    device: str
    where: str

    def targets(self, batch: Sequence[tuple[int, Prepared]]) -> dict[str, Targets]:
        """Truth of a batch."""
        places, items = [place for place, _ in batch], [item for _, item in batch]
        return make_targets(self.clips, places, items, self.learner.level, self.device)


def learn(
    course: Course,
    *,
    state: Path | None = None,
    every: int = 1,
    on_epoch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Teach an encoder until its gate, its patience or its last epoch; it is left as its best epoch was.

    Args:
        state: file the run is saved to after every `every`-th epoch, and resumed from bit by bit.

    Raises:
        UserError: the loss is no number. ParamsError: LoRA in layers that no gradient reaches.
    """
    adapt, network = course.adapt, course.encoder.network
    cuda = [torch.device(course.device)] if torch.device(course.device).type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(adapt.seed)
        order = torch.Generator().manual_seed(adapt.seed)
        course.learner.observe(make_targets(course.clips, course.clips.train, None, course.learner.level, course.device))
        optimiser = build_optimiser(course)
        progress = load_state(state, network, course.learner, optimiser, order) if state else Progress()
        while not is_done(adapt, progress):
            loss, f1 = _run_epoch(course, optimiser, order, progress)
            _validate(course, progress, loss, f1)
            if state is not None and progress.epoch % every == 0:
                save_state(state, network, course.learner, optimiser, order, progress)
            if on_epoch is not None:
                on_epoch(progress)
        put_back(network, course.learner, progress.best)
    return progress


def is_done(adapt: Adapt, progress: Progress) -> bool:
    """Whether the gate has been passed (and what goes on after it is over), patience has ended, or no epoch is left."""
    if progress.gate is not None:
        return progress.epoch >= progress.gate + adapt.beyond
    return progress.epoch >= adapt.epochs or (adapt.patience is not None and progress.waited >= adapt.patience)


def build_optimiser(course: Course) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019): the encoder at `lr`, the heads at `head_lr`."""
    adapt = course.adapt
    groups = [
        {"params": [v for v in course.encoder.network.parameters() if v.requires_grad], "lr": float(adapt.lr)},
        {"params": list(course.learner.heads.parameters()), "lr": float(adapt.head_lr)},
    ]
    kept = [group | {"initial_lr": group["lr"]} for group in groups if group["params"]]
    return torch.optim.AdamW(kept, weight_decay=float(adapt.weight_decay))


def _set_rates(optimiser: torch.optim.Optimizer, adapt: Adapt, progress: Progress, done: float) -> None:
    """Up over the warm-up, then down along a cosine; after the gate a small rate.

    Args:
        done: share of the epoch's steps.
    """
    share = min(1.0, (progress.epoch + done) / adapt.epochs)
    rise = min(1.0, share / adapt.warmup) if adapt.warmup else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * max(0.0, share - adapt.warmup) / max(1e-9, 1 - adapt.warmup)))
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * rise * fall
        if progress.gate is not None:
            group["lr"] = min(group["initial_lr"], float(adapt.beyond_lr))


def _learning(network: nn.Module, on: bool) -> None:
    """Dropout of LoRA is on while it learns. The rest stays in evaluation mode: its statistics are those of its weights."""
    for name, module in network.named_modules():
        if ".lora_dropout." in f".{name}.":
            module.train(on)


def _run_epoch(
    course: Course, optimiser: torch.optim.Optimizer, order: torch.Generator, progress: Progress
) -> tuple[float, float]:
    """Training loss and macro-F1 of an epoch, as they were while it learned."""
    adapt, learner, network = course.adapt, course.learner, course.encoder.network
    _learning(network, True)
    learner.train()
    train = course.clips.train
    places = [train[i] for i in torch.randperm(len(train), generator=order).tolist()]
    steps = max(1, math.ceil(len(places) / adapt.batch))
    total, seen, guessed = 0.0, 0, list[tuple[Tensor, Tensor]]()
    parameters = [value for group in optimiser.param_groups for value in group["params"]]
    optimiser.zero_grad(set_to_none=True)
    for step, batch in enumerate(course.seen.read(places, order)):
        targets = course.targets(batch)
        with calculating(adapt.precision, course.device):
            outputs, _ = learner([item for _, item in batch])
        outputs = {name: value.float() for name, value in outputs.items()}
        loss = learner.lose(outputs, targets)
        if not bool(torch.isfinite(loss.detach())):
            raise UserError(f"{course.where}: the loss is no number in epoch {progress.epoch + 1}; lower lr.")
        (loss / adapt.accumulate).backward()
        if progress.epoch == 0 and step == 0:
            _check_gradients(course)
        if (step + 1) % adapt.accumulate == 0 or step + 1 >= steps:
            _set_rates(optimiser, adapt, progress, (step + 1) / steps)
            nn.utils.clip_grad_norm_(parameters, float(adapt.clip_norm))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        learner.remember({name: value.detach() for name, value in outputs.items()}, targets)
        total, seen = total + float(loss.detach()) * len(batch), seen + len(batch)
        if "emotion" in outputs:
            guessed.append((targets["row"].emotion.cpu(), outputs["emotion"].detach().argmax(1).cpu()))
    if not seen:
        raise UserError(f"{course.where}: no training clip can be read; see data/quarantine.parquet.")
    if any(value.grad is not None for value in parameters):  # the last batches were fewer: some clips could not be read
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return total / seen, _macro_f1(guessed, course.clips)["macro_f1"]


def _check_gradients(course: Course) -> None:
    """Refuse LoRA that nothing would teach.

    Raises:
        ParamsError: names a layer whose matrices get no gradient.
    """
    for name, value in course.encoder.network.named_parameters():
        if ".lora_B." in name and (value.grad is None or not bool(value.grad.any())):
            raise ParamsError(
                f"{course.where}: no gradient reaches LoRA in {name.partition('.lora_B.')[0]}; leave it out of targets."
            )


def _macro_f1(guessed: Sequence[tuple[Tensor, Tensor]], clips: Clips) -> dict[str, float]:
    """Figures of (truth, prediction) pairs; NaN where no emotion is learned."""
    names = ("macro_f1", "macro_f1_zero", "uar", "accuracy")
    if not guessed:
        return dict.fromkeys(names, float("nan"))
    truth, predicted = (torch.cat(part).numpy() for part in zip(*guessed, strict=True))
    found = metrics.classification(truth, predicted, len(clips.classes))
    return {name: float(found[name]) for name in names}


def _join(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of batches as those of one; what runs along time is padded with zeros."""
    joined: Outputs = {}
    for name in parts[0]:
        if name in OVER_TIME:
            rows = [clip for part in parts for clip in part[name]]
            joined[name] = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        else:
            joined[name] = torch.cat([part[name] for part in parts])
    return joined


@torch.no_grad()
def _validate(course: Course, progress: Progress, train_loss: float, train_f1: float) -> None:
    """Score the epoch, and keep what was learned when it is the best so far."""
    learner, network = course.learner.eval(), course.encoder.network
    _learning(network, False)
    parts, read = list[Outputs](), list[tuple[int, Prepared]]()
    for batch in course.seen.read(course.clips.val, None):
        with calculating(course.adapt.precision, course.device):
            outputs, _ = learner([item for _, item in batch])
        parts.append({name: value.float() for name, value in outputs.items()})
        read += [(place, Prepared({}, item.times)) for place, item in batch]
    if not parts:
        raise UserError(f"{course.where}: no validation clip can be read; see data/quarantine.parquet.")
    # All of validation at once: losses that compare clips are no mean over batches.
    outputs, targets = _join(parts), course.targets(read)
    loss = float(learner.lose(outputs, targets))
    guessed = [(targets["row"].emotion.cpu(), outputs["emotion"].argmax(1).cpu())] if "emotion" in outputs else []
    found = _macro_f1(guessed, course.clips)
    progress.epoch += 1
    row = {"epoch": float(progress.epoch), "train_loss": train_loss, "val_loss": loss, "train_macro_f1": train_f1}
    progress.history.append(row | {f"val_{name}": value for name, value in found.items()})
    score = found["macro_f1"] if guessed else -loss
    if (score, -loss) > progress.key or not progress.best:
        progress.key, progress.best_epoch, progress.waited = (score, -loss), progress.epoch, 0
        progress.best = {name: value.detach().clone() for name, value in collect(network, learner).items()}
    else:
        progress.waited += 1
    if guessed and progress.gate is None and course.adapt.gate is not None and score > course.adapt.gate:
        progress.gate = progress.epoch
