"""A space of its own for losses that compare clips."""

from __future__ import annotations

import torch.nn.functional as F

from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Flag, Group

from .base import Head, perceptron


class Projection(Head):
    """(R, W) → vectors (R, K) of length 1; what is predicted reads what is fused, not these (Chen et al. 2020)."""

    class Options(Group):
        """frames: also of each instant, (R, T, W) → (R, T, K), zero where there is none; set where a loss reads it."""

        frames: Flag = False

    options: Options

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Group) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(width, width, size, dropout)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        found = {self.name: F.normalize(self.net(fused.vector), dim=-1)}
        if self.options.frames and fused.tokens is not None:
            vectors = F.normalize(self.net(fused.tokens.values), dim=-1)
            found[f"{self.name}.frames"] = vectors * fused.tokens.mask[..., None]
        return found
