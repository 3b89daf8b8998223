"""Attention over the streams of turns."""

from __future__ import annotations

from torch import nn

from pipeline.models.batch import Fused, History
from pipeline.models.blocks import CrossBlock

from .base import Context, ContextOptions, take_rows


class Multihead(Context):
    """The clip looks at every stream of every turn: a stream of an earlier turn may tell what its fused vector does not."""

    def __init__(self, width: int, heads: int, dropout: float, options: ContextOptions) -> None:
        super().__init__(width, heads, dropout, options)
        self.norm = nn.LayerNorm(width)
        self.block = CrossBlock(width, heads, dropout)

    def forward(self, fused: Fused, history: History) -> Fused:
        """See `Context.forward`."""
        places = history.places.clamp(min=0)
        parts = self.norm(fused.parts[places] + self.place(history)[:, :, None])  # (R, K, M, W)
        there = fused.present[places] & history.here[..., None]  # (R, K, M)
        rows = take_rows(fused, history)
        seen = self.block(rows.vector[:, None], parts.flatten(1, 2), there.flatten(1))
        return rows._replace(vector=seen[:, 0])
