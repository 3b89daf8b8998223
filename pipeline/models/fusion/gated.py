"""Gates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.params.base import Flag

from .base import FusionOptions, Pointwise, embedding


class Gated(Pointwise):
    """Softmax gates over the streams present, one per stream or one per stream and dimension (Arevalo et al. 2017).

    With v the projected vectors side by side: g = softmax(W₂ relu(W₁ v)), y = Dropout(LayerNorm(Σ gᵢ vᵢ)).
    """

    class Options(FusionOptions):
        """per_dimension: a gate for each of the H dimensions."""

        per_dimension: Flag = True

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        count = len(self.streams)
        self.gates = width if options.per_dimension else 1
        # Beside one stream that is present an absent one moves no gate.
        self.absent = embedding(count, width) if count > 2 else None
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in self.streams)
        # The last bias moves all gates of a lone stream alike; two streams or more give it a gradient.
        self.gate = (
            nn.Sequential(nn.Linear(count * width, width), nn.ReLU(), nn.Linear(width, count * self.gates)) if count > 1 else None
        )
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def weigh(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Projected vectors → (…, M, 1 or H), summing to one over the streams present, zero for the others."""
        if self.gate is None:
            return present[..., None].to(vectors.dtype)
        logits = self.gate(vectors.flatten(-2)).unflatten(-1, (len(self.streams), self.gates))
        some = present.any(-1)[..., None, None]
        logits = logits.masked_fill(~present[..., None] & some, float("-inf"))
        return logits.softmax(-2) * present[..., None]

    def project(self, vectors: Tensor) -> Tensor:
        """See `Pointwise.project`."""
        return torch.stack([net(vectors[..., i, :]) for i, net in enumerate(self.projections)], -2)

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pointwise.mix`."""
        vectors = self.project(vectors if self.absent is None else torch.where(present[..., None], vectors, self.absent))
        weights = self.weigh(vectors, present)
        return self.dropout(self.norm((weights * vectors).sum(-2))), weights.mean(-1)
