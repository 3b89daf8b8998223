"""Attention over turns."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.batch import Fused
from pipeline.models.blocks import Attention as Attend
from pipeline.models.blocks import feed_forward

from .base import Context, ContextOptions, gather_turns, number_turns, take_rows


class Attention(Context):
    """The clip looks at the earlier turns of its dialogue, and at itself; how long ago a turn was is learned.

    Causal: no later turn is seen. A clip without history is looked at alone.
    """

    def __init__(self, width: int, heads: int, dropout: float, options: ContextOptions) -> None:
        super().__init__(width, heads, dropout, options)
        self.ago = nn.Embedding(options.turns + 1, width)
        nn.init.normal_(self.ago.weight, std=0.02)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attend(width, heads, dropout)
        self.perceptron = feed_forward(width, dropout)

    def forward(self, fused: Fused, history: Tensor) -> Fused:
        """See `Context.forward`."""
        turns, here = gather_turns(fused.vector, history)  # (R, K, W), (R, K)
        turns = self.norm1(turns + self.ago(number_turns(history)))
        rows = take_rows(fused, history)
        seen = self.attention(turns[:, -1:], turns, here)[:, 0]  # (R, W)
        vector = rows.vector + seen
        return rows._replace(vector=vector + self.perceptron(self.norm2(vector)))
