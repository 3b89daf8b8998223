"""Temporal transformer of one stream: frames, audio steps or words in, contextual tokens out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batch import Tokens

#: Periods of the positional code, seconds: from a quarter of a second to two minutes.
PERIODS = (0.25, 120.0)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention over time, in `heads` parts.

    Args:
        query: (B, Q, H). key, value: (B, K, H). mask: (B, K) bool, keys that exist.

    Returns:
        (B, Q, H); zero for samples without any key, so that absence never becomes NaN.
    """
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    some = mask.any(1)
    # A softmax over no key is NaN: such samples attend to padding and the result is dropped.
    allowed = (mask | ~some[:, None])[:, None, None, :]
    out = F.scaled_dot_product_attention(*split, attn_mask=allowed)
    return out.transpose(1, 2).flatten(2) * some[:, None, None]


class Attention(nn.Module):
    """Multi-head attention of `query` over `context`, both (B, ·, H).

    Dropout is on the residual branch only: dropping single attention weights costs a quarter of a
    training step on a CPU and keeps `scaled_dot_product_attention` from its fast kernel.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.query = nn.Linear(width, width)
        # No bias on keys: softmax does not see it, so it would be a parameter without gradient.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        mixed = attend(self.query(query), self.key(context), self.value(context), mask, self.heads)
        return self.dropout(self.out(mixed))


def feed_forward(width: int, dropout: float, factor: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, factor * width), nn.GELU(), nn.Linear(factor * width, width), nn.Dropout(dropout))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.forward_ = feed_forward(width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, mask)
        return x + self.forward_(self.norm2(x))


class StreamEncoder(nn.Module):
    """LayerNorm → Linear → position by seconds → transformer blocks → LayerNorm.

    Args:
        inputs: D, width of the stream's tokens.
        width: H. blocks: number of transformer blocks, may be 0.
        levels: L > 0 when tokens keep all hidden layers; a learned softmax weight mixes them
            (weighted-sum probing as in SUPERB, Yang et al. 2021).
    """

    def __init__(self, inputs: int, width: int, blocks: int, heads: int, dropout: float, levels: int = 0) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Parameter(torch.zeros(levels)) if levels else None
        self.norm = nn.LayerNorm(inputs)
        self.project = nn.Linear(inputs, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(blocks))
        self.final = nn.LayerNorm(width)
        low, high = PERIODS
        steps = torch.linspace(math.log(low), math.log(high), (width + 1) // 2)
        self.register_buffer("frequencies", 2 * math.pi * torch.exp(-steps), persistent=False)

    def position(self, times: Tensor) -> Tensor:
        """Sinusoidal code (B, T, H) of the token centres, seconds."""
        phase = times.mean(-1, keepdim=True) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], -1)[..., : self.width]

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, T, H); zero where there is no token."""
        values = tokens.values
        if self.mix is not None:
            values = torch.einsum("l,btld->btd", self.mix.softmax(0), values)
        x = self.dropout(self.project(self.norm(values))) + self.position(tokens.times)
        for block in self.blocks:
            x = block(x, tokens.mask)
        return self.final(x) * tokens.mask[..., None]
