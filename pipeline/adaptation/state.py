"""Where an adaptation stands, saved after epochs; one that is resumed is the uninterrupted one, bit by bit."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.storage.checked_file import read_checked, write_checked

from .learner import Learner


@dataclass
class Progress:
    """After an epoch.

    Attributes:
        waited: epochs since the best. gate: the epoch whose macro-F1 was beyond the gate.
        best: what was learned by the best epoch, encoder and heads; key: its (score, -validation loss).
        history: a row per epoch.
    """

    epoch: int = 0
    waited: int = 0
    gate: int | None = None
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    key: tuple[float, float] = (float("-inf"), float("-inf"))
    history: list[dict[str, float]] = field(default_factory=list)


def collect(network: nn.Module, learner: Learner) -> dict[str, Tensor]:
    """What has gradients, by name."""
    parts = {"encoder": network, "heads": learner.heads}
    return {f"{part}.{n}": v for part, module in parts.items() for n, v in module.named_parameters() if v.requires_grad}


def put_back(network: nn.Module, learner: Learner, tensors: dict[str, Tensor]) -> None:
    """Inverse of `collect`."""
    with torch.no_grad():
        for name, value in collect(network, learner).items():
            value.copy_(tensors[name])


def save_state(
    path: Path, network: nn.Module, learner: Learner, optimiser: torch.optim.Optimizer, order: torch.Generator, progress: Progress
) -> None:
    """Write what a resumed run needs, with a checksum."""
    buffer, device = io.BytesIO(), next(network.parameters()).device
    kept: dict[str, Any] = {
        "tensors": collect(network, learner),
        "memory": learner.memory(),
        "optimiser": optimiser.state_dict(),
        "order": order.get_state(),
        "noise": torch.get_rng_state(),
        "noise_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "progress": vars(progress),
    }
    torch.save(kept, buffer)
    write_checked(path, buffer.getvalue())


def load_state(
    path: Path, network: nn.Module, learner: Learner, optimiser: torch.optim.Optimizer, order: torch.Generator
) -> Progress:
    """Put back what `save_state` wrote; a new beginning where there is none, or it fails its checksum."""
    if (content := read_checked(path)) is None:
        return Progress()
    device = next(network.parameters()).device
    kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    put_back(network, learner, kept["tensors"])
    learner.recall({name: value.to(device) for name, value in kept["memory"].items()})
    optimiser.load_state_dict(kept["optimiser"])
    order.set_state(kept["order"])
    torch.set_rng_state(kept["noise"])
    if kept["noise_gpu"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(kept["noise_gpu"], device)
    progress = Progress(**kept["progress"])
    progress.best = {name: value.to(device) for name, value in progress.best.items()}
    return progress
