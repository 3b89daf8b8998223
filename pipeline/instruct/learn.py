"""Rounds and epochs of instruction tuning; one that is resumed is the uninterrupted one, bit by bit."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError, UserError
from pipeline.models.composed.speaker import lose
from pipeline.storage.checked_file import read_checked, write_checked

from .examples import Example, Split
from .settings import Round
from .tutor import Tutor


@dataclass
class Progress:
    """After an epoch.

    Attributes:
        number: of the round, from 0. epoch: epochs done in it.
        best: what was learned by the round's best epoch on validation, the last where there is none; key: its loss.
        history: `round`, `epoch`, `train_loss`, `val_loss`.
    """

    number: int = 0
    epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    key: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)


def learn(
    tutor: Tutor,
    split: Split,
    *,
    state: Path | None = None,
    about: str = "",
    on_epoch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Teach; what learns is left as the last round's best epoch was, each round goes on from the best of the one before.

    Args:
        state: file the run is saved to after every epoch, and resumed from. about: what decides the run.

    Raises:
        ParamsError: the file is of another run. UserError: the loss is no number.
    """
    settings, device = tutor.settings, tutor.speaker.head.device
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(settings.seed)
        order = torch.Generator().manual_seed(settings.seed)
        kept = read_state(state, about)
        progress = Progress(**kept["progress"]) if kept else Progress()
        for number in range(progress.number, len(settings.rounds)):
            now = settings.rounds[number]
            optimiser = torch.optim.AdamW(tutor.learned().values(), lr=float(now.lr), weight_decay=float(now.weight_decay))
            if kept:
                tutor.put_back(kept["tensors"])
                optimiser.load_state_dict(kept["optimiser"])
                order.set_state(kept["order"])
                torch.set_rng_state(kept["noise"])
                if cuda and kept["noise_gpu"] is not None:
                    torch.cuda.set_rng_state(kept["noise_gpu"], device)
                kept = None
            else:
                progress.number, progress.epoch, progress.best, progress.key = number, 0, {}, float("inf")
            train, val = ([one for one in part if one.task in now.tasks] for part in (split.train, split.val))
            while progress.epoch < now.epochs:
                loss = _run_epoch(tutor, train, now, optimiser, order, progress.epoch)
                _validate(tutor, val, progress, loss)
                if state is not None:
                    _save(state, tutor, optimiser, order, progress, about)
                if on_epoch is not None:
                    on_epoch(progress)
            tutor.put_back(progress.best)
    return progress


def _run_epoch(
    tutor: Tutor, train: Sequence[Example], now: Round, optimiser: torch.optim.Optimizer, order: torch.Generator, epoch: int
) -> float:
    """The mean training loss, as it was while it learned."""
    settings, values = tutor.settings, list(tutor.learned().values())
    size = settings.batch * settings.accumulate
    places = torch.randperm(len(train), generator=order).tolist()
    draws = [len(settings.tasks[train[i].task].questions) for i in places]
    asked = [int(torch.randint(count, (1,), generator=order)) for count in draws]
    steps = math.ceil(len(train) / size) if now.steps is None else min(now.steps, math.ceil(len(train) / size))
    tutor.speaker.train()
    total = seen = 0.0
    for step in range(steps):
        # The last step has what is left over, and is the mean over that.
        chosen = list(zip(places, asked, strict=True))[step * size : (step + 1) * size]
        optimiser.zero_grad(set_to_none=True)
        for start in range(0, len(chosen), settings.batch):
            some = chosen[start : start + settings.batch]
            examples = [train[i] for i, _ in some]
            scores = tutor.score(examples, [question for _, question in some])
            loss = lose(scores, torch.tensor([one.weight for one in examples]))
            if not bool(torch.isfinite(loss.detach())):
                raise UserError(f"instruct: the loss is no number in epoch {epoch + 1}; lower the round's lr, or take float32.")
            (loss / len(chosen)).backward()
            total, seen = total + float(loss.detach()), seen + len(some)
        rate = find_rate(now, epoch * steps + step, now.epochs * steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(values, float(settings.clip_norm))
        optimiser.step()
    return total / seen


def find_rate(now: Round, step: int, steps: int) -> float:
    """The rate of a step, counted from 0.

    >>> now = Round(tasks=("emotion",), lr=1.0, final_lr=0.0, warmup=0.5)
    >>> [round(find_rate(now, step, 8), 3) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    rise = round(float(now.warmup) * steps)
    if step < rise:
        return float(now.lr) * (step + 1) / rise
    share = (step - rise) / max(1, steps - rise)
    return float(now.final_lr) + (float(now.lr) - float(now.final_lr)) * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def _validate(tutor: Tutor, val: Sequence[Example], progress: Progress, train_loss: float) -> None:
    """Score the epoch, and keep what was learned when it is the best so far."""
    tutor.speaker.eval()
    size, total = tutor.settings.batch, 0.0
    for start in range(0, len(val), size):
        some = val[start : start + size]
        total += float(lose(tutor.score(some), torch.tensor([one.weight for one in some])))
    loss = total / len(val) if val else float("nan")
    progress.epoch += 1
    row = {"round": progress.number + 1, "epoch": progress.epoch, "train_loss": train_loss, "val_loss": loss}
    progress.history.append(row)
    if not val or loss < progress.key or not progress.best:
        progress.key = loss if val else progress.key
        progress.best = {name: value.detach().clone() for name, value in tutor.learned().items()}


def _save(
    path: Path, tutor: Tutor, optimiser: torch.optim.Optimizer, order: torch.Generator, progress: Progress, about: str
) -> None:
    buffer, device = io.BytesIO(), tutor.speaker.head.device
    kept = {
        "about": about,
        "tensors": {name: value.detach() for name, value in tutor.learned().items()},
        "optimiser": optimiser.state_dict(),
        "order": order.get_state(),
        "noise": torch.get_rng_state(),
        "noise_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "progress": vars(progress),
    }
    torch.save(kept, buffer)
    write_checked(path, buffer.getvalue())


def read_state(path: Path | None, about: str) -> dict | None:
    """What a run saved; None where there is nothing, or it fails its checksum: then the run starts over.

    Raises:
        ParamsError: it is of another run.
    """
    if (content := read_checked(path)) is None:
        return None
    kept: dict = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if kept["about"] != about:
        raise ParamsError(f"{path} is of a run with other settings or clips; give --fresh to begin anew, or another --out.")
    return kept
