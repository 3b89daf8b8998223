"""Valence, arousal, dominance over time."""

from __future__ import annotations

import torch

from pipeline.models.batch import Fused, Outputs

from .base import Regressor


class Frames(Regressor):
    """What is fused at each instant (R, T, W), beside what is known of the clip (R, W) or (R, T, W) → (R, T, K)."""

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Regressor.Options) -> None:
        super().__init__(name, width, size, dropout, options, 2 * width)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`; void where the base stream has no token."""
        if fused.tokens is None:
            return {}
        tokens = fused.tokens.values  # (R, T, W)
        clip = fused.vector[:, None].expand_as(tokens) if fused.past is None else fused.past
        return self.regress(torch.cat([tokens, clip], -1))
