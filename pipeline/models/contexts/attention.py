"""Attention over turns."""

from __future__ import annotations

from torch import nn

from pipeline.models.batch import Fused, History
from pipeline.models.blocks import Attention as Attend
from pipeline.models.blocks import feed_forward

from .base import Context, ContextOptions, gather_turns, take_rows


class Attention(Context):
    """The clip looks at the turns around it, and at itself; a clip without any looks at itself alone."""

    def __init__(self, width: int, heads: int, dropout: float, options: ContextOptions) -> None:
        super().__init__(width, heads, dropout, options)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attend(width, heads, dropout)
        self.perceptron = feed_forward(width, dropout)

    def forward(self, fused: Fused, history: History) -> Fused:
        """See `Context.forward`."""
        turns = self.norm1(gather_turns(fused.vector, history) + self.place(history))  # (R, K, W)
        rows = take_rows(fused, history)
        at = history.at
        seen = self.attention(turns[:, at : at + 1], turns, history.here)[:, 0]  # (R, W)
        vector = rows.vector + seen
        return rows._replace(vector=vector + self.perceptron(self.norm2(vector)))
