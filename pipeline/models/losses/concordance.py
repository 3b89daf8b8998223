"""Concordance and squared error of dimensions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Group, Share

from .base import EPSILON, Loss, mean_rows


class Concordance(Loss):
    """share · (1 - CCC) + (1 - share) · MSE, mean over the dimensions that have truth.

    The concordance correlation (Lin 1989) is over all rows of the batch, and over all their frames for `frames`; with
    fewer than two known values of a dimension the squared error stands alone.
    """

    class Options(Group):
        """share: of the concordance."""

        share: Share = 0.5

    reads: ClassVar[tuple[str, ...]] = ("dimensions", "frames")
    options: Options

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        pred, truth = outputs[self.on], targets.of(self.on)  # (R, K) or (R, T, K)
        known = torch.isfinite(truth)
        weight = targets.weight.reshape(-1, *[1] * (pred.ndim - 1)) * known
        pred, truth, weight = (x.reshape(-1, x.shape[-1]) for x in (pred, truth.nan_to_num(0.0), weight))
        share = float(self.options.share)
        parts, there = [], []
        for p, t, w in zip(pred.unbind(1), truth.unbind(1), weight.unbind(1), strict=True):
            square, count = mean_rows((p - t) ** 2, w), (w > 0).sum()
            both = (1 - share) * square + share * (1 - concord(p, t, w))
            parts.append(torch.where(count > 1, both, square))
            there.append((count > 0).to(p.dtype))
        return mean_rows(torch.stack(parts), torch.stack(there))


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
