"""Tensor fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.params.base import Count

from .base import FusionOptions, Pointwise, layer

#: Most numbers of a product: the matrix on it has as many rows.
LARGEST = 65_536


class Tensor(Pointwise):
    """The outer product of all streams, each with a one appended: all products of their dimensions (Zadeh et al. 2017).

    An absent stream is zero beside its one: what the others make among themselves remains.

    Raises:
        ParamsError: the product would be absurdly large.
    """

    class Options(FusionOptions):
        """size: width each stream is brought to before; the product has (size + 1)^M numbers."""

        size: Count = 8

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        count, size = len(self.streams), options.size
        numbers = (size + 1) ** count
        if numbers > LARGEST:
            fits = max((s for s in range(1, size) if (s + 1) ** count <= LARGEST), default=0)
            mend = f"set fusion.options.size to {fits} or less, or take" if fits else "take"
            raise ParamsError(
                f"fusion tensor: the product of {count} streams of size {size} has {numbers} numbers, more than {LARGEST}; "
                f"{mend} fusion=low_rank."
            )
        self.reduce = nn.ModuleList(layer(width, size, 0.0) for _ in self.streams)
        self.dropout = nn.Dropout(dropout)
        self.out = layer(numbers, width, dropout)

    def multiply(self, vectors: torch.Tensor) -> torch.Tensor:
        """(…, M, S) → (…, (S + 1)^M), the last stream's dimensions next to each other."""
        ones = torch.cat([vectors, torch.ones_like(vectors[..., :1])], -1)
        product = ones[..., 0, :]
        for i in range(1, len(self.streams)):
            product = (product[..., :, None] * ones[..., i, None, :]).flatten(-2)
        return product

    def mix(self, vectors: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, None]:
        """See `Pointwise.mix`."""
        small = torch.stack([net(vectors[..., i, :]) for i, net in enumerate(self.reduce)], -2) * present[..., None]
        return self.out(self.dropout(self.multiply(small))), None
