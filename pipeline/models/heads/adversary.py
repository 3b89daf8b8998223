"""Who speaks, predicted so that what is fused forgets it."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Group, Number

from .base import Head, perceptron


class Reverse(torch.autograd.Function):
    """Identity forward, -strength · gradient backward (Ganin & Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, strength: float) -> Tensor:
        """`x` itself."""
        ctx.strength = strength  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        """Turned round, for what lies below the head; the head itself learns as usual."""
        return -ctx.strength * gradients[0], None  # type: ignore[attr-defined]


class Adversary(Head):
    """(R, W) → logits (R, C) of a domain, `speaker` or `corpus`, through a gradient that is turned round."""

    class Options(Group):
        """strength: λ of the reversal."""

        strength: Number = 1.0

    options: Options

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Options) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(width, width, size, dropout)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        reversed_: Tensor = Reverse.apply(fused.vector, float(self.options.strength))
        return {self.name: self.net(reversed_)}
