"""Focal loss weighted batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.params.base import Group, Positive

from .base import ClassLoss, mean_rows
from .class_weights import name_factors
from .focal import Focus, focus


class AutoFocal(ClassLoss):
    """Mean of scale · w_y (1 - p_y)^γ (-log p_y), with w_k ∝ 1 / (n_k + 0.1), Σ w = 1, n_k ≥ 1 clips of the batch."""

    class Options(Group):
        """gamma: γ. temperature: what logits are divided by. scale: of the loss. factors: {class: factor} of w_k."""

        gamma: Focus = 2.0
        temperature: Positive = 1.0
        scale: Positive = 0.5
        factors: dict[str, Positive] = {}

    options: Options
    factors: Tensor

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__(on, size, options, classes)
        chosen = self.options.factors
        factors = name_factors(chosen, classes, self.on) if chosen else torch.ones(size)
        self.register_buffer("factors", factors, persistent=False)

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        met = (truth[:, None] == torch.arange(self.size, device=truth.device)) & (weight[:, None] > 0)  # (R, C)
        rarity = 1 / (met.sum(0).clamp(min=1) + 0.1)
        factors = (rarity / rarity.sum() * self.factors).to(logits.dtype)
        values = focus(logits / float(self.options.temperature), truth, float(self.options.gamma))
        return float(self.options.scale) * mean_rows(values * factors[truth], weight)
