"""Focal loss."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.params.base import Number, Positive

from .base import EPSILON, mean_rows
from .class_weights import WeightedLoss, WeightedOptions

Focus = Annotated[Number, Field(ge=0)]


class Focal(WeightedLoss):
    """Mean of α_y (1 - p_y)^γ (-log p_y), p clamped to [ε, 1-ε] (Lin et al. 2017); the mean is over rows, not over α."""

    class Options(WeightedOptions):
        """gamma: γ. temperature: what logits are divided by. class_weights: α."""

        gamma: Focus = 2.0
        temperature: Positive = 1.0

    options: Options

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        values = focus(logits / float(self.options.temperature), truth, float(self.options.gamma))
        return mean_rows(values * self.factors.to(logits.dtype)[truth], weight)


def focus(logits: Tensor, truth: Tensor, gamma: float) -> Tensor:
    """(R,) (1 - p_y)^γ (-log p_y) of logits (R, C)."""
    known = logits.log_softmax(-1).gather(-1, truth[..., None]).squeeze(-1)
    # The value is clamped and the gradient is not: rows that are wrong beyond ε are those that have most to learn.
    surprise = known + (known.clamp(min=math.log(EPSILON)) - known).detach()
    return (1 - known.exp()).clamp(min=EPSILON) ** gamma * -surprise
