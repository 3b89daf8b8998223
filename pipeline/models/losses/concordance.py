"""Concordance and squared error of dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.params.base import Group, Share

from .base import EPSILON, DimensionLoss, mean_rows

#: Variance of truth below which it is constant: labels in [-1, 1] are in steps of a hundredth or more.
FLAT = 1e-9


class Concordance(DimensionLoss):
    """share · (1 - CCC) + (1 - share) · MSE, mean over the dimensions that have truth.

    The concordance correlation (Lin 1989) is over all rows of the batch, and over all their frames for `frames`; where the
    known truth of a dimension does not vary (one value, a constant) it is undefined, and the squared error stands alone.
    """

    class Options(Group):
        """share: of the concordance."""

        share: Share = 0.5

    options: Options

    def score(self, pred: Tensor, truth: Tensor, weight: Tensor, *beside: Tensor) -> Tensor:
        """See `DimensionLoss.score`."""
        share = float(self.options.share)
        square = mean_rows((pred - truth) ** 2, weight)
        both = (1 - share) * square + share * (1 - concord(pred, truth, weight))
        # Of one value, or of truth that never changes, there is no concordance.
        varies = mean_rows((truth - mean_rows(truth, weight)) ** 2, weight) > FLAT
        return torch.where(varies, both, square)


def concord(pred: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Concordance correlation with population moments: (N,), (N,), weights (N,) → scalar.

    >>> x = torch.tensor([1.0, 2.0, 3.0])
    >>> round(float(concord(x, x, torch.ones(3))), 4)
    1.0
    """
    mp, mt = mean_rows(pred, weight), mean_rows(truth, weight)
    covariance = mean_rows((pred - mp) * (truth - mt), weight)
    spread = mean_rows((pred - mp) ** 2, weight) + mean_rows((truth - mt) ** 2, weight)
    return 2 * covariance / (spread + (mp - mt) ** 2 + EPSILON)
