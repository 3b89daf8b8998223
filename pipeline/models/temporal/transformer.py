"""Attention over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.blocks import Block
from pipeline.params.base import Count, Group

from .base import Temporal


class Transformer(Temporal):
    """Pre-norm transformer blocks (Vaswani et al. 2017); causal: tokens look at earlier ones and themselves."""

    class Options(Group):
        """factor: how much wider than H the perceptron of a block is inside."""

        factor: Count = 2

    options: Options

    def build(self, place: int) -> nn.Module:
        """See `Temporal.build`."""
        return Block(self.width, self.heads, self.dropout, self.options.factor)

    def limit(self, mask: Tensor) -> Tensor:
        """See `Temporal.limit`."""
        if not self.causal:
            return mask
        length = mask.shape[1]
        return mask[:, None] & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
