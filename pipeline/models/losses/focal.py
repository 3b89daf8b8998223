"""Focal loss."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.params.base import Flag, Group, Number

from .base import EPSILON, ClassLoss, mean_rows


class Focal(ClassLoss):
    """Mean of α_y (1 - p_y)^γ (-log p_y), p clamped to [ε, 1-ε] (Lin et al. 2017); the mean is over rows, not over α."""

    class Options(Group):
        """gamma: γ. class_weights: α by inverse frequency among the training clips, else 1."""

        gamma: Annotated[Number, Field(ge=0)] = 2.0
        class_weights: Flag = False

    options: Options

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        p = logits.log_softmax(-1).gather(-1, truth[..., None]).squeeze(-1).exp().clamp(EPSILON, 1 - EPSILON)
        values = (1 - p) ** float(self.options.gamma) * -p.log()
        return mean_rows(values * self.frequency[truth] if self.options.class_weights else values, weight)
