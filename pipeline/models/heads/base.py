"""Heads: from what is fused to an output by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from pipeline.models.batch import Fused, Outputs
from pipeline.models.component import Component
from pipeline.params.base import Group


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


def perceptron(inputs: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """LayerNorm → Linear → GELU → Dropout → Linear."""
    return nn.Sequential(
        nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs)
    )
