"""Classes by their effective number of clips."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.models.batch import Targets
from pipeline.params.base import Group, Number

from .base import ClassLoss, mean_rows
from .class_weights import fill_absent
from .focal import Focus, focus


class ClassBalanced(ClassLoss):
    """Mean of w_y (1 - p_y)^γ (-log p_y), w_k ∝ (1 - β) / (1 - β^n_k), their mean over the classes 1 (Cui et al. 2019)."""

    class Options(Group):
        """beta: β; 0 weighs all classes alike, towards 1 by inverse frequency. gamma: γ, 0 = cross-entropy."""

        beta: Annotated[Number, Field(ge=0, lt=1)] = 0.999
        gamma: Focus = 0.0

    options: Options
    factors: Tensor

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__(on, size, options, classes)
        self.register_buffer("factors", self.counts.clone(), persistent=False)

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        super().observe(targets)
        self.factors = weigh_effectively(self.counts, float(self.options.beta))

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        values = focus(logits, truth, float(self.options.gamma))
        return mean_rows(values * self.factors.to(logits.dtype)[truth], weight)


def weigh_effectively(counts: Tensor, beta: float) -> Tensor:
    """(C,) weights of classes by their counts; the mean over those that occur is 1.

    >>> import torch
    >>> [round(w, 4) for w in weigh_effectively(torch.tensor([1.0, 2.0]), 0.5).tolist()]
    [1.2, 0.8]
    """
    # 1 - β^n by `expm1`: β near 1 would cost the digits that tell rare classes apart.
    logarithm = math.log(beta) if beta else -math.inf
    found = -1 / (counts.clamp(min=1).double() * logarithm).expm1()
    there = counts > 0
    found = found * there.sum() / (found * there).sum().clamp(min=1e-12)
    return fill_absent(found.to(counts.dtype), counts)
