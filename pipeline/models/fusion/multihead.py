"""Attention over streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.blocks import Attention
from pipeline.params.base import Count

from .base import FusionOptions, Pointwise


class Multihead(Pointwise):
    """The streams of a clip look at each other, and the result is added to what they are side by side.

    Each stream gets a slice of the fused vector x, as wide as its share of all widths. Its token is its slice, zero elsewhere.
    y = Dropout(LayerNorm(x + mean of what the tokens see)). Attention is over the streams of one clip: over the clips of a
    batch, an answer would depend on its neighbours.

    Raises:
        ParamsError: more streams than dimensions, or no such divisor.
    """

    class Options(FusionOptions):
        """degree: the number of heads is this divisor of the width, counted from the smallest; null = `temporal.heads`."""

        degree: Count | None = None

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        self.widths = divide_width(width, list(streams.values()))
        heads = heads if options.degree is None else find_divisor(width, options.degree)
        self.projections = nn.ModuleList(nn.Linear(width, size) for size in self.widths)
        self.absent = nn.Parameter(torch.randn(width) * 0.02)
        self.attention = Attention(width, heads, dropout) if len(self.streams) > 1 else None  # a lone one has nobody to look at
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def project(self, vectors: Tensor) -> Tensor:
        """(…, M, H) → (…, M, W): the token of each stream."""
        slices = [net(vectors[..., i, :]) for i, net in enumerate(self.projections)]
        ends = torch.tensor(self.widths).cumsum(0).tolist()
        return torch.stack(
            [
                nn.functional.pad(part, (end - size, self.width - end))
                for part, size, end in zip(slices, self.widths, ends, strict=True)
            ],
            -2,
        )

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Pointwise.mix`; the share of a stream is how much the streams look at it."""
        here = present[..., None]
        tokens = self.project(vectors) * here  # (…, M, W)
        whole = tokens.sum(-2) + self.absent * self._find_gaps(present)  # (…, W)
        if self.attention is None:
            return self.dropout(self.norm(whole)), present.to(vectors.dtype)
        one = tokens.flatten(0, -3), present.flatten(0, -2)
        count = present.sum(-1, keepdim=True).clamp(min=1)  # (…, 1)
        seen = self.attention(one[0], *one).view_as(tokens)
        fused = self.dropout(self.norm(whole + (seen * here).sum(-2) / count))
        if vectors.dim() > 3:  # at each instant: nobody reads the shares
            return fused, None
        looks = self.attention.weigh(one[0], *one).mean(1)  # (B, M, M)
        return fused, (looks * here).sum(-2) / count

    def _find_gaps(self, present: Tensor) -> Tensor:
        """(…, W) true in the slices of absent streams."""
        gaps = [(~present[..., i : i + 1]).expand(*present.shape[:-1], size) for i, size in enumerate(self.widths)]
        return torch.cat(gaps, -1)


def divide_width(width: int, sizes: Sequence[int]) -> list[int]:
    """Widths in proportion to sizes, rounded down but to one at least; the widest gets what remains.

    Raises:
        ParamsError: there is not one for each.

    >>> divide_width(512, [768, 2048, 1536])
    [90, 242, 180]
    """
    if width < len(sizes):
        raise ParamsError(f"fusion multihead: {len(sizes)} streams do not fit into temporal.width {width}.")
    widths = [max(1, width * size // sum(sizes)) for size in sizes]
    while (excess := sum(widths) - width) > 0:  # of many narrow streams
        widths[widths.index(max(widths))] -= 1
    widths[sizes.index(max(sizes))] -= excess
    return widths


def find_divisor(width: int, degree: int) -> int:
    """The `degree`-th divisor of the width, counted from 1 upwards.

    Raises:
        ParamsError: it has fewer.

    >>> find_divisor(512, 3)
    4
    """
    divisors = [number for number in range(1, width + 1) if width % number == 0]
    if degree > len(divisors):
        raise ParamsError(f"fusion.options.degree: {width} has {len(divisors)} divisors ({divisors}), no {degree}th.")
    return divisors[degree - 1]
