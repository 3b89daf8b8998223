"""Attention between streams."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.models.blocks import CrossBlock
from pipeline.params.base import Count

from .base import FusionOptions, Pointwise, Streams, embedding, layer


class CrossAttention(Pointwise):
    """Token-level attention across streams, both ways, then pooling and a projection.

    With one stream it attends to itself. Attending over pooled vectors (one key) would make the
    softmax 1 and the query void, therefore tokens.
    """

    class Options(FusionOptions):
        """layers: rounds of attention. factor: how much wider the perceptron of a round is inside."""

        layers: Count = 1
        factor: Count = 2

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        count = len(self.streams)
        self.absent = embedding(count, width)
        self.kind = embedding(count, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: CrossBlock(width, heads, dropout, options.factor) for name in self.streams})
            for _ in range(options.layers)
        )
        self.out = layer(count * width, width, dropout)

    def relate(self, streams: Streams) -> Streams:
        """Tokens (B, T, H) of each stream, having looked at those of the others."""
        states = [streams[name].values + self.kind[i] for i, name in enumerate(self.streams)]
        masks = [streams[name].mask for name in self.streams]
        for blocks in self.layers:
            assert isinstance(blocks, nn.ModuleDict)
            states = [blocks[name](states[i], *_join_others(states, masks, i)) for i, name in enumerate(self.streams)]
        return {name: streams[name]._replace(values=states[i]) for i, name in enumerate(self.streams)}

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `Pointwise.mix`."""
        return self.out(torch.where(present[..., None], vectors, self.absent).flatten(-2)), None


def _join_others(states: list[Tensor], masks: list[Tensor], i: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, S, H) and mask of all streams but the i-th; of a lone stream, its own."""
    others = [j for j in range(len(states)) if j != i] or [i]
    return torch.cat([states[j] for j in others], 1), torch.cat([masks[j] for j in others], 1)
