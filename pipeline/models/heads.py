"""Heads: from the fused vector (and the tokens of one stream) to emotion and valence–arousal."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassHead(nn.Module):
    """(B, H) → logits (B, C)."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, classes)
        )

    def forward(self, fused: Tensor) -> Tensor:
        return self.net(fused)


class DimensionHead(nn.Module):
    """(..., inputs) → (..., K) in (-1, 1)."""

    def __init__(self, inputs: int, width: int, dimensions: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, dimensions)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.net(x))


class FrameHead(DimensionHead):
    """Tokens (B, T, H) under the fused vector (B, H) → (B, T, K) in (-1, 1)."""

    def __init__(self, width: int, dimensions: int, dropout: float) -> None:
        super().__init__(2 * width, width, dimensions, dropout)

    def forward(self, tokens: Tensor, fused: Tensor) -> Tensor:
        return super().forward(torch.cat([tokens, fused[:, None].expand_as(tokens)], -1))
