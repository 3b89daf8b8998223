"""A transformer over turns."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.models.batch import Fused, History
from pipeline.models.blocks import Block
from pipeline.params.base import Count

from .base import Context, ContextOptions, gather_turns, take_rows


class Transformer(Context):
    """Every turn looks at those before it, layer by layer, as the clip does; with `later`, at all of the window."""

    class Options(ContextOptions):
        """layers: transformer blocks."""

        layers: Count = 1

    def __init__(self, width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(width, heads, dropout, options)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(options.layers))
        self.final = nn.LayerNorm(width)

    def forward(self, fused: Fused, history: History) -> Fused:
        """See `Context.forward`."""
        here = history.here
        count = here.shape[1]
        mask = here[:, None].expand(-1, count, -1)  # (R, K, K)
        if not self.options.later:
            mask = mask & torch.ones(count, count, dtype=torch.bool, device=here.device).tril()
        turns = gather_turns(fused.vector, history) + self.place(history)  # (R, K, W)
        for block in self.blocks:
            turns = block(turns, mask)
        rows = take_rows(fused, history)
        return rows._replace(vector=rows.vector + self.final(turns[:, history.at]))
