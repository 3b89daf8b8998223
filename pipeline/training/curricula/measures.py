"""How far a point of valence, arousal and dominance lies from the prototype of its class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Measure = Literal["euclidean", "pearson", "spearman", "directional", "directional_l1", "directional_quadratic"]


class Pairs(NamedTuple):
    """Points and the prototypes of their classes, on one scale.

    Attributes:
        points, prototypes: (n, K) float64. neutral: (n,) bool, the class has no direction.
        weights: (K,), of measures that have weights. low, high: ends of the scale.
    """

    points: Tensor
    prototypes: Tensor
    neutral: Tensor
    weights: Tensor
    low: float
    high: float

    def stray(self) -> Tensor:
        """(n, K) how far a point falls short of its class' direction.

        The direction is from the middle of the scale to the prototype: what goes beyond the prototype is no difficulty.
        Neutral, and a dimension in which the prototype is in the middle, have none: there both sides count.
        """
        short = self.prototypes - self.points
        way = (self.prototypes - (self.low + self.high) / 2).round(decimals=9).sign()
        both = self.neutral[:, None] | (way == 0)
        return torch.where(both, short.abs(), (way * short).clamp(min=0))


def _distance(correlation: Tensor) -> Tensor:
    return (1 - correlation) / 2


def correlate(first: Tensor, second: Tensor) -> Tensor:
    """(n, K), (n, K) → (n,) Pearson's correlation of each row; 0 where a row is constant."""
    first, second = (side - side.mean(1, keepdim=True) for side in (first, second))
    norm = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(norm > 1e-9, (first * second).sum(1) / norm.clamp(min=1e-9), 0.0)


def rank(values: Tensor) -> Tensor:
    """(n, K) → ranks in each row from 1, equal values sharing theirs.

    >>> rank(torch.tensor([[5.0, 1.0, 5.0]])).tolist()
    [[2.5, 1.0, 2.5]]
    """
    values = values.double().round(decimals=6)  # a scale there and back must not break a tie
    below = (values[:, :, None] > values[:, None]).sum(2)
    same = (values[:, :, None] == values[:, None]).sum(2)
    return below + (same + 1) / 2


#: Name → difficulty (n,) of pairs, 0 at the prototype (for correlations: in its direction).
MEASURES: dict[Measure, Callable[[Pairs], Tensor]] = {
    "euclidean": lambda pairs: (pairs.points - pairs.prototypes).norm(dim=1),
    "pearson": lambda pairs: _distance(correlate(pairs.points, pairs.prototypes)),
    "spearman": lambda pairs: _distance(correlate(rank(pairs.points), rank(pairs.prototypes))),
    "directional": lambda pairs: pairs.stray().norm(dim=1) / (pairs.high * math.sqrt(pairs.points.shape[1])),
    "directional_l1": lambda pairs: pairs.stray() @ pairs.weights,
    "directional_quadratic": lambda pairs: pairs.stray().square() @ pairs.weights,
}

#: Weights of valence, arousal, dominance, of measures that have them.
WEIGHTS: dict[Measure, tuple[float, float, float]] = {
    "directional_l1": (0.4, 0.4, 0.2),
    "directional_quadratic": (0.5, 0.3, 0.2),
}
