"""Valence, arousal, dominance of a clip."""

from __future__ import annotations

import torch

from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Group

from .base import Head, perceptron


class Dimensions(Head):
    """(R, W) → (R, K) in (-1, 1)."""

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Group) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(width, width, size, dropout)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        return {self.name: torch.tanh(self.net(fused.vector))}
