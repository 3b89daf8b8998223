"""A clip as one row: statistics over its tokens, and their standardisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .batch import Tokens
from .blocks import project

#: How a clip's tokens are read: normalised, their mean, mean and standard deviation, or as they were stored (`states`).
Pooling = Literal["none", "mean", "statistics", "states"]
#: What N is of tokens (N, D): hidden layers, or places of a picture, of which none has a meaning of its own.
Axis = Literal["layer", "space"]


def pool_tokens(tokens: Tokens, pooling: Pooling, axis: Axis = "layer") -> Tokens:
    """(B, T, D) or (B, T, N, D) → (B, 1, P), one row per clip: P = D, of layers N · D, or twice that for `statistics`.

    Args:
        axis: what N is; places of a picture (`space`) are averaged first.

    The deviation is that over the clip (1/T), after the mean, as in x-vectors (Snyder et al. 2018).

    >>> tokens = Tokens(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]), torch.zeros(1, 3, 2))
    >>> pool_tokens(tokens, "statistics").values.tolist()
    [[[2.0, 1.0]]]
    """
    if pooling in ("none", "states"):
        return tokens
    values, mask = tokens.values, tokens.mask[..., None]
    values = values.mean(2) if axis == "space" else values.flatten(2)
    count = mask.sum(1, keepdim=True).clamp(min=1)
    pooled = (values * mask).sum(1, keepdim=True) / count
    if pooling == "statistics":
        spread = (((values - pooled) * mask) ** 2).sum(1, keepdim=True) / count
        pooled = torch.cat([pooled, spread.sqrt()], -1)
    begin = tokens.times[..., 0].masked_fill(~tokens.mask, torch.inf).amin(1)
    end = tokens.times[..., 1].masked_fill(~tokens.mask, -torch.inf).amax(1)
    times = torch.stack([begin, end], -1)[:, None].nan_to_num(posinf=0.0, neginf=0.0)
    return Tokens(pooled, tokens.present[:, None], times)


class Standardise(nn.Module):
    """(B, T, P) → zero mean and unit deviation over the training clips, times a factor; zero where there is no token.

    Attributes:
        centre, scale: (P,), fitted by `fit`; as they come, until then.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, rows: Tensor, factor: float = 1.0) -> None:
        """Take the statistics of (n, P) rows; what does not vary is held at zero, and without any row nothing changes.

        Args:
            factor: that all are multiplied by afterwards.
        """
        if not len(rows):
            return
        rows = rows.double()
        deviation = rows.std(0, unbiased=False)
        # What does not vary over the clips says nothing; what is left of rounding must not be blown up.
        flat = deviation < 1e-6 * rows.abs().amax(0).clamp(min=1e-6)
        self.centre.copy_(rows.mean(0))
        self.scale.copy_(torch.where(flat, 0.0, factor / deviation.clamp(min=1e-12)))

    def forward(self, tokens: Tokens) -> Tokens:
        """See the class."""
        return tokens._replace(values=(tokens.values - self.centre) * self.scale * tokens.mask[..., None])


class PooledEncoder(nn.Module):
    """One row per clip: standardised → noise → dropout → Linear, or a perceptron of the stream's own.

    What the streams share comes after their fusion.

    Args:
        reads: P, numbers of the row. width: H.
        noise: standard deviation of what is added to the standardised numbers while training.
        hidden: widths of the perceptron's hidden layers, in multiples of H.
    """

    def __init__(self, reads: int, width: int, dropout: float, noise: float, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.standardise = Standardise(reads)
        self.noise = noise
        self.dropout = nn.Dropout(dropout)
        self.project = project(reads, width, hidden, dropout)

    def forward(self, tokens: Tokens) -> Tokens:
        """(B, 1, P) → (B, 1, H); zero where the stream is absent."""
        values = self.standardise(tokens).values
        if self.training and self.noise:
            values = values + self.noise * torch.randn_like(values)
        return tokens._replace(values=self.project(self.dropout(values)) * tokens.mask[..., None])
