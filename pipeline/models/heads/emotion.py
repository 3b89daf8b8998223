"""Emotion classes."""

from __future__ import annotations

from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Group

from .base import Head, perceptron


class Emotion(Head):
    """(R, W) → logits (R, C)."""

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Group) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(width, width, size, dropout)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        return {self.name: self.net(fused.vector)}
