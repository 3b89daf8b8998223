"""The optimiser, and its learning rate over steps."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.model import EmotionModel, is_within
from pipeline.params import Training


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at `step` (from 0) of `total`: linear up over the share `warmup`, cosine to 0.

    The first step is above 0, the peak is 1, the last step is just above 0. Without state: what a resumed run computes is
    what an uninterrupted one does.

    >>> [round(warmup_cosine(step, 10, 0.2), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.04]
    """
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def group_parameters(model: EmotionModel, training: Training, lr: float) -> list[dict]:
    """Groups for the optimiser: a rate per part (`training.rates`), and no decay of norms, biases and embeddings.

    Each group holds its peak rate as `peak`.

    Raises:
        ParamsError: everything is frozen.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        # The longest name that fits is the nearest part.
        part = max((p for p in training.rates if is_within(name, p)), key=len, default=None)
        rate = lr * (float(training.rates[part]) if part else 1.0)
        groups.setdefault((rate, value.ndim > 1), []).append(value)
    if not groups:
        raise ParamsError("training.phases.freeze leaves nothing to learn; take a part out of it.")
    return [
        {"params": values, "lr": rate, "peak": rate, "weight_decay": float(training.weight_decay) if decayed else 0.0}
        for (rate, decayed), values in groups.items()
    ]


def build_optimiser(model: EmotionModel, training: Training, lr: float) -> torch.optim.AdamW:
    """AdamW over what learns (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(group_parameters(model, training, lr), lr=lr, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Every group at `factor` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
