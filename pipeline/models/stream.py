"""Encoder of one stream: frames, audio steps or words in, tokens that know of each other out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .batch import Tokens
from .blocks import project
from .pooled import Axis
from .temporal.base import Temporal
from .temporal.transformer import Transformer

#: Periods of the positional code, seconds: from a quarter of a second to two minutes.
PERIODS = (0.25, 120.0)


class Places(nn.Module):
    """(B, T, N, D) → (B, T, D): a mean over places, weighted by what a learned query finds in each, wherever it is.

    At first the query asks for nothing, and all weigh alike.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(inputs))

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        found = nn.functional.layer_norm(values, (len(self.query),)) @ self.query / math.sqrt(len(self.query))  # (B, T, N)
        return torch.einsum("btn,btnd->btd", found.softmax(-1), values)


class StreamEncoder(nn.Module):
    """LayerNorm → Linear, or a perceptron → position by seconds → what tokens tell each other over time → LayerNorm.

    Args:
        inputs: D, width of the stream's tokens.
        width: H. blocks: number of temporal layers, may be 0.
        levels: N > 0 when tokens are (N, D). Of hidden layers (`axis: layer`) a learned softmax weight mixes them
            (weighted-sum probing as in SUPERB, Yang et al. 2021); places of a picture (`space`) are attended, see `Places`.
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
        axis: Axis = "layer",
        position: bool = True,
    ) -> None:
        super().__init__()
        self.width, self.position = width, position
        self.mix = nn.Parameter(torch.zeros(levels)) if levels and axis == "layer" else None
        self.places = Places(inputs) if levels and axis == "space" else None
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
        """(B, T, D) or (B, T, N, D) → (B, T, H); zero where there is no token."""
        values = tokens.values
        if self.mix is not None:
            values = torch.einsum("l,btld->btd", self.mix.softmax(0), values)  # (B, T, D)
        if self.places is not None:
            values = self.places(values)
        x = self.dropout(self.project(self.norm(values)))  # (B, T, H)
        if self.position:
            x = x + self.encode_position(tokens.times)
        x = self.blocks(x, tokens.mask)
        return tokens._replace(values=self.final(x) * tokens.mask[..., None])
