"""Concatenation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .base import FusionOptions, Pointwise, embedding, layer


class Concat(Pointwise):
    """Streams side by side through a two-layer perceptron; a learned embedding stands in for an absent one."""

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: FusionOptions) -> None:
        super().__init__(streams, width, heads, dropout, options)
        count = len(self.streams)
        self.absent = embedding(count, width)
        self.perceptron = nn.Sequential(layer(count * width, 2 * width, dropout), layer(2 * width, width, dropout))

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `Pointwise.mix`."""
        return self.perceptron(torch.where(present[..., None], vectors, self.absent).flatten(-2)), None
