"""Who speaks, predicted so that what is fused forgets it."""

from __future__ import annotations

import math
from typing import Literal

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
        """strength: λ of the reversal. schedule: `constant`, or `progressive`: from 0 to it, see `grow`."""

        strength: Number = 1.0
        schedule: Literal["constant", "progressive"] = "constant"

    options: Options

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Options) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(width, width, size, dropout)
        self.strength = float(options.strength)

    def advance(self, done: float) -> None:
        """See `Component.advance`."""
        if self.options.schedule == "progressive":
            self.strength = float(self.options.strength) * grow(done)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        reversed_: Tensor = Reverse.apply(fused.vector, self.strength)
        return {self.name: self.net(reversed_)}


def grow(done: float) -> float:
    """2 / (1 + e^(-10 p)) - 1: an adversary that knows nothing yet does not disturb (Ganin & Lempitsky 2015).

    >>> [round(grow(done), 3) for done in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.462, 0.987, 1.0]
    """
    return 2 / (1 + math.exp(-10 * done)) - 1
