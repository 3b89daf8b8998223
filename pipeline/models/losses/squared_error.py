"""Squared error of dimensions."""

from __future__ import annotations

from torch import Tensor

from .base import DimensionLoss, mean_rows


class SquaredError(DimensionLoss):
    """Mean of (prediction - truth)², over the known values of each dimension."""

    def score(self, pred: Tensor, truth: Tensor, weight: Tensor, *beside: Tensor) -> Tensor:
        """See `DimensionLoss.score`."""
        return mean_rows((pred - truth) ** 2, weight)
