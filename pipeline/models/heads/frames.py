"""Valence, arousal, dominance over time."""

from __future__ import annotations

import torch

from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Group

from .base import Head, perceptron


class Frames(Head):
    """What is fused at each instant (R, T, W), beside the clip's vector (R, W) → (R, T, K) in (-1, 1)."""

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Group) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(2 * width, width, size, dropout)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`; void where the base stream has no token."""
        if fused.tokens is None:
            return {}
        tokens = fused.tokens.values  # (R, T, W)
        clip = fused.vector[:, None].expand_as(tokens)
        return {self.name: torch.tanh(self.net(torch.cat([tokens, clip], -1)))}
