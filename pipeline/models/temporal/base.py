"""Temporal encoders: tokens of one stream look at each other over time."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pipeline.models.component import Component
from pipeline.params.base import Group


class Temporal(Component, ABC):
    """Base: a stack of residual layers, each of which keeps the shape.

    What stands where there is no token is not read, and a clip's tokens are the same whatever stands beside it.

    Args:
        width: H. layers: how many, may be 0. heads: of attention, for kinds that have it.
        causal: a token sees itself and those before it alone.
    """

    def __init__(
        self, width: int, layers: int, heads: int, dropout: float, causal: bool = False, options: Group | None = None
    ) -> None:
        super().__init__()
        self.width, self.heads, self.dropout, self.causal = width, heads, dropout, causal
        self.options = self.Options() if options is None else options
        for place in range(layers):
            self.add_module(str(place), self.build(place))

    @abstractmethod
    def build(self, place: int) -> nn.Module:
        """The layer at this place from 0: (B, T, H), mask → (B, T, H)."""

    def limit(self, mask: Tensor) -> Tensor:
        """The mask as a layer takes it: (B, T) as it is, or (B, T, T) which token sees which."""
        return mask

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H), (B, T) bool → (B, T, H); what stands where there is no token means nothing."""
        seen = self.limit(mask)
        for layer in self.children():
            x = layer(x, seen)
        return x
