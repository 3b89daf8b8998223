"""Low-rank tensor fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.params.base import Count

from .base import FusionOptions, Pointwise


class LowRank(Pointwise):
    """Tensor fusion whose weights are a sum of `rank` products, one factor per stream (Liu et al. 2018).

    y = Dropout(LayerNorm(Σᵣ cᵣ ∏ₘ Wᵣₘ [vₘ; 1] + b)): the outer product is never made, so that the cost grows with the number of
    streams and not with its power. An absent stream is zero beside its one.
    """

    class Options(FusionOptions):
        """rank: products in the sum."""

        rank: Count = 4

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        self.rank = options.rank
        # The bias of a factor is what the appended one is multiplied with. It begins at one: a product of M factors around zero
        # would vanish, around one it begins as the sum of the streams and their products.
        self.factors = nn.ModuleList(nn.Linear(width, options.rank * width) for _ in self.streams)
        for factor in self.factors:
            assert isinstance(factor, nn.Linear)
            nn.init.ones_(factor.bias)
        self.weight = nn.Parameter(torch.full((options.rank,), 1 / options.rank))
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def multiply(self, vectors: Tensor) -> Tensor:
        """(…, M, H) → (…, W), before it is normalised."""
        each = torch.stack([net(vectors[..., i, :]) for i, net in enumerate(self.factors)])  # (M, …, rank · W)
        product = each.prod(0).unflatten(-1, (self.rank, self.width))
        return torch.einsum("r,...rw->...w", self.weight, product) + self.bias

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `Pointwise.mix`."""
        return self.dropout(self.norm(self.multiply(vectors * present[..., None]))), None
