"""Heads: from what is fused to an output by name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pipeline.models.batch import Fused, Outputs, name_variance
from pipeline.models.component import Component
from pipeline.params.base import Flag, Group

#: Standard deviations a head may give: labels are known to a hundredth at best, and differ by two at most.
LEAST, MOST = 0.01, 2.0


class Head(Component, ABC):
    """Base.

    Args:
        name: of the output. width: W of what is fused.
        size: of the output: classes, or dimensions.
    """

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Group) -> None:
        super().__init__()
        self.name, self.size, self.options = name, size, options

    @abstractmethod
    def forward(self, fused: Fused) -> Outputs:
        """The output under its name, and others that belong to it."""


class Regressor(Head):
    """Base of heads that give dimensions.

    Args:
        inputs: how many numbers it reads; None = W.
    """

    class Options(Group):
        """bounded: values in (-1, 1), where labels are; else any number.

        uncertainty: beside each value the logarithm of its variance, which the loss `gaussian` teaches.
        """

        bounded: Flag = True
        uncertainty: Flag = False

    options: Options

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Options, inputs: int | None = None) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(inputs or width, width, size * (1 + options.uncertainty), dropout)

    def regress(self, x: Tensor) -> Outputs:
        """(…, inputs) → (…, K), and with `uncertainty` the logarithm of the variance, (…, K)."""
        found: Tensor = self.net(x)
        values = found[..., : self.size]
        outputs = {self.name: torch.tanh(values) if self.options.bounded else values}
        if self.options.uncertainty:
            low, high = 2 * math.log(LEAST), 2 * math.log(MOST)
            outputs[name_variance(self.name)] = low + (high - low) * torch.sigmoid(found[..., self.size :])
        return outputs


def perceptron(inputs: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """LayerNorm → Linear → GELU → Dropout → Linear."""
    return nn.Sequential(
        nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs)
    )
