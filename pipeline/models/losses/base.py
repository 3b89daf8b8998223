"""Losses: named terms of outputs and targets; rows of weight 0, and rows without truth, take no part.

No branch depends on a value, so that a loss runs under `torch.func.vmap` and without waiting for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, Targets
from pipeline.models.component import Component
from pipeline.params.base import Group

EPSILON = 1e-8


class Loss(Component, ABC):
    """Base.

    Args:
        on: the output it reads; None = the first of `reads`.
        size: of that output: classes, or dimensions.

    Attributes:
        reads: outputs it is made for; the head of the one it is `on` is built for it.
    """

    reads: ClassVar[tuple[str, ...]]

    def __init__(self, on: str | None, size: int, options: Group) -> None:
        super().__init__()
        self.on, self.size, self.options = on or self.reads[0], size, options

    def observe(self, targets: Targets) -> None:
        """See the targets of all training clips, once, before the first step (class frequencies and the like)."""

    @abstractmethod
    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """A scalar; 0 with gradients of 0 when no row takes part."""


class ClassLoss(Loss):
    """A loss on logits (R, C): hands over what takes part."""

    reads: ClassVar[tuple[str, ...]] = ("emotion", "speaker", "corpus")
    frequency: Tensor

    def __init__(self, on: str | None, size: int, options: Group) -> None:
        super().__init__(on, size, options)
        self.register_buffer("frequency", torch.ones(size), persistent=False)

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        self.frequency = weigh_classes(targets.of(self.on), self.size).to(self.frequency.device)

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        truth = targets.of(self.on)
        return self.score(outputs[self.on], truth.clamp(min=0), targets.weight * (truth >= 0))

    @abstractmethod
    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """(R, C), (R,) valid classes, (R,) weights, 0 = no part → scalar."""


def weigh_classes(truth: Tensor, classes: int) -> Tensor:
    """(C,) N / (K n_k), K counting classes that occur; a class that does not occur weighs 1.

    >>> weigh_classes(torch.tensor([0, 0, 0, 1, -1]), 3).tolist()
    [0.6666666865348816, 2.0, 1.0]
    """
    counts = torch.bincount(truth[truth >= 0], minlength=classes).float()
    occurring = (counts > 0).sum().clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (occurring * counts.clamp(min=1)), 1.0)


def mean_rows(values: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · value / Σ weight over (N,); 0 when all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=EPSILON)
