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
        size: of that output: classes, or dimensions; of an embedding, the classes that its clips are of.
        classes: their names, where they have names.

    Attributes:
        reads: outputs it is made for; the head of the one it is `on` is built for it.
        over_time: it reads that output at each instant of the time base as well, `projection.frames`.
        wants: an option of that head which must be true; None = no such.
    """

    reads: ClassVar[tuple[str, ...]]
    over_time: ClassVar[bool] = False
    wants: ClassVar[str | None] = None

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.on, self.size, self.options, self.classes = on or self.reads[0], size, options, classes

    def observe(self, targets: Targets) -> None:
        """See the targets of all training clips, once, before the first step (class frequencies and the like).

        Raises:
            ParamsError: nothing can be learned from them, or an option does not fit the classes.
        """

    @property
    def keeps(self) -> bool:
        """Whether it keeps anything of a batch."""
        return False

    @property
    def lags(self) -> bool:
        """Whether it wants to keep what the averaged weights make of a batch."""
        return False

    @property
    def unlabelled(self) -> bool:
        """Whether clips without any label teach it something."""
        return False

    def remember(self, outputs: Outputs, targets: Targets) -> None:
        """See a batch after the step it was for; what is kept of it is a buffer, saved with the run."""

    @abstractmethod
    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """A scalar; 0 with gradients of 0 when no row takes part."""


class ClassLoss(Loss):
    """A loss on logits (R, C): hands over what takes part.

    Attributes:
        counts: (C,) training clips of each class; all 1 before any was seen.
    """

    reads: ClassVar[tuple[str, ...]] = ("emotion", "speaker", "corpus")
    counts: Tensor

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__(on, size, options, classes)
        self.register_buffer("counts", torch.ones(size), persistent=False)

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        self.counts = count_classes(targets.of(self.on), self.size).to(self.counts.device)

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        truth = targets.of(self.on)
        return self.score(outputs[self.on], truth.clamp(min=0), targets.weight * (truth >= 0))

    @abstractmethod
    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """(R, C), (R,) valid classes, (R,) weights, 0 = no part → scalar."""


class DimensionLoss(Loss):
    """A loss on values (R, K), or (R, T, K) over time: the mean over the dimensions that have truth."""

    reads: ClassVar[tuple[str, ...]] = ("dimensions", "frames")

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        return self.average(outputs[self.on], targets)

    def average(self, pred: Tensor, targets: Targets, *beside: Tensor) -> Tensor:
        """The mean of `score` over the dimensions that have truth.

        Args:
            beside: of the shape of `pred`; what `score` is given besides.
        """
        truth = targets.of(self.on)
        known = torch.isfinite(truth)
        weight = targets.weight.reshape(-1, *[1] * (pred.ndim - 1)) * known
        columns = [x.reshape(-1, x.shape[-1]).unbind(1) for x in (pred, truth.nan_to_num(0.0), weight, *beside)]
        parts = [self.score(*column) for column in zip(*columns, strict=True)]
        return mean_rows(torch.stack(parts), (weight.flatten(0, -2) > 0).any(0).to(pred.dtype))

    @abstractmethod
    def score(self, pred: Tensor, truth: Tensor, weight: Tensor, *beside: Tensor) -> Tensor:
        """One dimension: (N,) values, (N,) truth, (N,) weights, 0 = no part → scalar."""


def count_classes(truth: Tensor, classes: int) -> Tensor:
    """(C,) rows of each class; unknown ones (-1) count for none."""
    return torch.bincount(truth[truth >= 0], minlength=classes).float()


def mean_rows(values: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · value / Σ weight over (N,); 0 when all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=EPSILON)
