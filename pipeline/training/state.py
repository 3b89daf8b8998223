"""Where a run stands, saved so that a resumed run is the uninterrupted one, bit by bit."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pipeline.models.model import EmotionModel
from pipeline.storage.checked_file import read_checked, write_checked


@dataclass
class Progress:
    """Where a run stands after an epoch; all of it is saved and restored.

    Attributes:
        phase: number of the phase, from 0. epoch: epochs done in it. waited: epochs since its best one.
        best: what was learned by the phase's best epoch; key: its (score, -validation loss).
        history: per epoch `phase`, `epoch`, `train_loss`, `val_loss`, `val_<metric>`.
        weight: (n,) weights of the training clips in the next epoch, or None: all alike.
        memory: what the losses keep of earlier batches.
        average: the averaged weights, empty without; steps: what they are averaged over.
    """

    phase: int = 0
    epoch: int = 0
    waited: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    key: tuple[float, float] = (float("-inf"), float("-inf"))
    history: list[dict[str, float | str]] = field(default_factory=list)
    weight: Tensor | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def begin_phase(self, number: int) -> None:
        """Forget what belongs to the phase before."""
        self.phase, self.epoch, self.waited, self.best, self.best_epoch = number, 0, 0, {}, 0
        self.key, self.weight, self.memory = (float("-inf"), float("-inf")), None, {}
        self.average, self.steps = {}, 0


def save_state(
    path: Path, model: EmotionModel, optimiser: torch.optim.Optimizer, order: torch.Generator, progress: Progress
) -> None:
    """Write what a resumed run needs, with a checksum."""
    buffer = io.BytesIO()
    device = next(model.parameters()).device
    torch.save(
        {
            "model": model.trainable(),
            "optimiser": optimiser.state_dict(),
            "order": order.get_state(),
            "noise": torch.get_rng_state(),
            "noise_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "progress": vars(progress),
        },
        buffer,
    )
    write_checked(path, buffer.getvalue())


def read_state(path: Path | None) -> dict | None:
    """What `save_state` wrote; None when there is none, or it fails its checksum: then the run starts over."""
    if (content := read_checked(path)) is None:
        return None
    state: dict = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def read_progress(state: dict, device: torch.device) -> Progress:
    """The progress in a state, its tensors on `device`."""
    progress = Progress(**state["progress"])
    progress.best = {name: value.to(device) for name, value in progress.best.items()}
    progress.average = {name: value.to(device) for name, value in progress.average.items()}
    if progress.weight is not None:
        progress.weight = progress.weight.to(device)
    return progress


def restore_state(state: dict, model: EmotionModel, optimiser: torch.optim.Optimizer, order: torch.Generator) -> None:
    """Put weights, optimiser and generators back."""
    device = next(model.parameters()).device
    model.load_trainable(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    order.set_state(state["order"])
    torch.set_rng_state(state["noise"])
    if state["noise_gpu"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["noise_gpu"], device)
