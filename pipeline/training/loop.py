"""One training run: epochs over resident tensors, selection on validation, exact resume."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from pipeline.errors import ParamsError, StoreError
from pipeline.models.losses import class_weights
from pipeline.models.model import EmotionModel, ModelSpec, Output
from pipeline.params import Params
from pipeline.storage.atomic import atomic_file

from . import objective
from .data.dataset import Dataset
from .schedule import warmup_cosine


@dataclass
class Progress:
    """Where a run stands after an epoch; all of it is saved and restored.

    Attributes:
        epoch: epochs done. waited: epochs since the best one.
        best: weights of the best epoch; key: its (score, -validation loss).
        history: per epoch `epoch`, `train_loss`, `val_loss`, `val_<metric>`.
    """

    epoch: int = 0
    waited: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    key: tuple[float, float] = (float("-inf"), float("-inf"))
    history: list[dict[str, float]] = field(default_factory=list)


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
        The model with the weights of the best epoch, in evaluation mode, and the run's record.

    Raises:
        StoreError: no labelled training clip, or no labelled validation clip.
        ParamsError: the selection metric needs a head the task does not have.
    """
    training, names = params.training, tuple(spec.streams)
    _selectable(training.select, spec)
    usable = data.labelled() & data.present(names)
    train, val = (part[usable[part]] for part in (data.rows("train"), data.rows("val")))
    for part, role in ((train, "training"), (val, "validation")):
        if not len(part):
            raise StoreError(
                f"fold {data.fold} has no labelled {role} clip with {' or '.join(names)}; "
                "see `protocol` in params.yaml and the index' coverage."
            )
    device = data.emotion.device
    # Dropout draws from torch's own generators; the caller's are put back afterwards.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        model = EmotionModel(spec).to(device)
        optimiser = _optimiser(model, params)
        progress = Progress()
        if state is not None and state.is_file():
            progress = _restore(state, model, optimiser, order) or progress
        weights = (
            class_weights(data.emotion[train].cpu(), len(spec.classes)).to(device)
            if params.loss.class_weights and spec.classes
            else None
        )
        steps = -(-len(train) // training.batch_size)
        saved = time.monotonic()
        while progress.epoch < training.epochs and progress.waited < training.patience:
            model.train()
            total = 0.0
            chosen = train[torch.randperm(len(train), generator=order).to(device)]
            for i, rows in enumerate(chosen.split(training.batch_size)):
                factor = warmup_cosine(progress.epoch * steps + i, training.epochs * steps, training.warmup)
                for group in optimiser.param_groups:
                    group["lr"] = training.lr * factor
                loss = objective.total(model(data.batch(rows, names)), data.targets(rows, spec.base), params.loss, weights)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
                optimiser.step()
                total += float(loss.detach()) * len(rows)
            _validate(model, data, val, params, progress, total / len(train), weights)
            if state is not None and time.monotonic() - saved >= every:
                _save(state, model, optimiser, order, progress)
                saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(progress)
    model.load_state_dict(progress.best)
    return model.eval(), progress


@torch.inference_mode()
def predict(
    model: EmotionModel, data: Dataset, rows: Tensor, *, drop: frozenset[str] = frozenset(), batch_size: int = 64
) -> list[Output]:
    """Predictions of the clips at `rows`, batch by batch, in order.

    Args:
        drop: streams treated as missing in every clip.
    """
    model.eval()
    result = []
    for part in rows.split(batch_size):
        tokens = data.batch(part, tuple(model.spec.streams))
        tokens = {name: t._replace(mask=t.mask & False) if name in drop else t for name, t in tokens.items()}
        result.append(model(tokens))
    return result


def joined(parts: list[Output]) -> Output:
    """Batches as one; frames are padded to the longest."""

    def cat(values: list[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat(values)

    frames = [part.frames for part in parts]
    if frames[0] is not None:
        longest = max(f.shape[1] for f in frames)
        frames = [nn.functional.pad(f, (0, 0, 0, longest - f.shape[1])) for f in frames]
    return Output(
        cat([p.logits for p in parts]), cat([p.dimensions for p in parts]), cat(frames), torch.cat([p.fused for p in parts])
    )


def _validate(
    model: EmotionModel, data: Dataset, val: Tensor, params: Params, progress: Progress, train_loss: float, weights: Tensor | None
) -> None:
    """Score the epoch, keep the weights when they are the best so far."""
    model.eval()
    with torch.inference_mode():
        # Joined, so that CCC is over all of validation and not a mean over batches.
        output = joined(predict(model, data, val, batch_size=256))
        targets = data.targets(val, model.spec.base)
        loss = float(objective.total(output, targets, params.loss, weights))
        value = objective.score(params.training.select, output, targets, loss)
    progress.epoch += 1
    progress.history.append(
        {"epoch": progress.epoch, "train_loss": train_loss, "val_loss": loss, f"val_{params.training.select}": value}
    )
    # Few validation clips make equal scores common: the lower loss decides.
    if (value, -loss) > progress.key or not progress.best:
        progress.key, progress.best_epoch, progress.waited = (value, -loss), progress.epoch, 0
        progress.best = copy.deepcopy(model.state_dict())
    else:
        progress.waited += 1


def _selectable(select: str, spec: ModelSpec) -> None:
    if select == "ccc" and not spec.dimensions:
        raise ParamsError("training.select is 'ccc', but task.dimensions is empty; select uar, macro_f1 or loss.")
    if select not in ("ccc", "loss") and not spec.classes:
        raise ParamsError(f"training.select is {select!r}, but no emotion is predicted; select ccc or loss.")


def _optimiser(model: nn.Module, params: Params) -> torch.optim.AdamW:
    """AdamW; norms, biases and embeddings (vectors) are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": float(params.training.weight_decay)}, {"params": plain, "weight_decay": 0.0}],
        lr=params.training.lr,
        fused=True,
    )


def _save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, order: torch.Generator, progress: Progress) -> None:
    buffer = io.BytesIO()
    device = next(model.parameters()).device
    torch.save(
        {
            "model": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "order": order.get_state(),
            "noise": torch.get_rng_state(),
            "noise_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "progress": vars(progress),
        },
        buffer,
    )
    with atomic_file(path) as temporary:
        temporary.write_bytes(xxhash.xxh3_64_digest(buffer.getvalue()) + buffer.getvalue())


def _restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, order: torch.Generator) -> Progress | None:
    """Put everything back; None when the file fails its checksum, then the run starts over."""
    device = next(model.parameters()).device
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None  # another process has finished this run meanwhile
    if xxhash.xxh3_64_digest(content[8:]) != content[:8]:
        return None
    held = torch.load(io.BytesIO(content[8:]), map_location="cpu", weights_only=True)
    model.load_state_dict(held["model"])
    optimiser.load_state_dict(held["optimiser"])
    order.set_state(held["order"])
    torch.set_rng_state(held["noise"])
    if held["noise_gpu"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(held["noise_gpu"], device)
    progress = Progress(**held["progress"])
    progress.best = {name: value.to(device) for name, value in progress.best.items()}
    return progress
