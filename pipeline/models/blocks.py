"""Building blocks: attention that knows absence, and the transformer block made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention over time, in `heads` parts (Vaswani et al. 2017).

    Args:
        query: (B, Q, H). key, value: (B, K, H). mask: (B, K) bool, keys that exist, or (B, Q, K).

    Returns:
        (B, Q, H); zero for queries without any key, so that absence never becomes NaN.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))  # (B, heads, ·, H / heads)
    allowed = mask[:, None] if mask.ndim == 2 else mask  # (B, 1 or Q, K)
    some = allowed.any(-1, keepdim=True)
    # A softmax over no key is NaN: such queries attend to padding and the result is dropped.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=(allowed | ~some)[:, None])
    return out.transpose(1, 2).flatten(2) * some


def weigh(query: Tensor, key: Tensor, mask: Tensor, heads: int) -> Tensor:
    """What `attend` weighs its values by: (B, heads, Q, K), each row summing to one; zero for queries without any key.

    >>> import torch
    >>> weigh(torch.zeros(1, 1, 4), torch.zeros(1, 3, 4), torch.tensor([[True, True, False]]), 2).tolist()
    [[[[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.0]]]]
    """
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    allowed = (mask[:, None] if mask.ndim == 2 else mask)[:, None]  # (B, 1, 1 or Q, K)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~allowed & allowed.any(-1, keepdim=True), float("-inf")).softmax(-1) * allowed


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

    def weigh(self, query: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """How much each query looks at what: (B, heads, Q, K). `forward` does without, its kernel keeps no weights."""
        return weigh(self.query(query), self.key(context), mask, self.heads)


def project(inputs: int, width: int, factors: Sequence[int], dropout: float) -> nn.Module:
    """D → H: a Linear, after a layer Linear → ReLU → Dropout for each factor, that many times H wide.

    >>> [layer.out_features for layer in project(5, 4, (3, 2), 0.1) if isinstance(layer, nn.Linear)]
    [12, 8, 4]
    """
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [nn.Linear(inputs, factor * width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = factor * width
    last = nn.Linear(inputs, width)
    return nn.Sequential(*layers, last) if layers else last


def feed_forward(width: int, dropout: float, factor: int = 2) -> nn.Sequential:
    """The position-wise perceptron of a transformer block."""
    return nn.Sequential(nn.Linear(width, factor * width), nn.GELU(), nn.Linear(factor * width, width), nn.Dropout(dropout))


class Block(nn.Module):
    """Pre-norm transformer block: (B, T, H) → (B, T, H); mask as in `attend`."""

    def __init__(self, width: int, heads: int, dropout: float, factor: int = 2) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.perceptron = feed_forward(width, dropout, factor)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, mask)
        return x + self.perceptron(self.norm2(x))


class CrossBlock(nn.Module):
    """Post-norm block in which tokens of one stream look at tokens of others: (B, T, H), (B, S, H) → (B, T, H)."""

    def __init__(self, width: int, heads: int, dropout: float, factor: int = 2) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.perceptron = feed_forward(width, dropout, factor)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        # Nothing to look at: the token goes through unchanged by attention.
        seen = self.attention(x, context, mask) * mask.any(1)[:, None, None]
        x = self.norm1(x + seen)
        return self.norm2(x + self.perceptron(x))
