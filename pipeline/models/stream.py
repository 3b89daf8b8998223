"""Encoder of one stream: frames, audio steps or words in, tokens that know of each other out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .batch import Tokens
from .blocks import project
from .temporal.base import Temporal
from .temporal.transformer import Transformer

#: Periods of the positional code, seconds: from a quarter of a second to two minutes.
PERIODS = (0.25, 120.0)


class StreamEncoder(nn.Module):
    """LayerNorm → Linear, or a perceptron → position by seconds → what tokens tell each other over time → LayerNorm.

    Args:
        inputs: D, width of the stream's tokens.
        width: H. blocks: number of temporal layers, may be 0.
        levels: L > 0 when tokens keep all hidden layers; a learned softmax weight mixes them
            (weighted-sum probing as in SUPERB, Yang et al. 2021).
        temporal: makes the layers from width, number, heads and dropout.
        hidden: widths of the perceptron's hidden layers, in multiples of H.
    """

    frequencies: Tensor

    def __init__(
        self,
        inputs: int,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
        levels: int = 0,
        temporal: Callable[[int, int, int, float], Temporal] = Transformer,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Parameter(torch.zeros(levels)) if levels else None
        self.norm = nn.LayerNorm(inputs)
        self.project = project(inputs, width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)
        self.blocks = temporal(width, blocks, heads, dropout)
        self.final = nn.LayerNorm(width)
        low, high = PERIODS
        steps = torch.linspace(math.log(low), math.log(high), (width + 1) // 2)
        self.register_buffer("frequencies", 2 * math.pi * torch.exp(-steps), persistent=False)

    def encode_position(self, times: Tensor) -> Tensor:
        """Sinusoidal code (B, T, H) of the token centres: (B, T, 2) seconds."""
        phase = times.mean(-1, keepdim=True) * self.frequencies  # (B, T, H / 2)
        return torch.cat([phase.sin(), phase.cos()], -1)[..., : self.width]

    def forward(self, tokens: Tokens) -> Tokens:
        """(B, T, D) or (B, T, L, D) → (B, T, H); zero where there is no token."""
        values = tokens.values
        if self.mix is not None:
            values = torch.einsum("l,btld->btd", self.mix.softmax(0), values)  # (B, T, D)
        x = self.dropout(self.project(self.norm(values))) + self.encode_position(tokens.times)  # (B, T, H)
        x = self.blocks(x, tokens.mask)
        return tokens._replace(values=self.final(x) * tokens.mask[..., None])
