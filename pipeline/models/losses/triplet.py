"""Triplet loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.params.base import Positive

from .base import EPSILON, mean_rows
from .embeddings import EmbeddingLoss, tell_apart
from .memory import QueueOptions


class Triplet(EmbeddingLoss):
    """Clips of the same class nearer than those of others; every clip is an anchor, every class counts alike.

    `ratio`: -log(P / (P + Q)) with s = (1 + cos) / 2, P the mean s of the anchor with the clips of its class, Q with all
    others. `margin`: the mean of max(0, cos_n - cos_p + m) over all pairs of a clip p of its class and another n
    (Schroff et al. 2015). An anchor that lacks either takes no part.
    """

    class Options(QueueOptions):
        """form: `ratio` or `margin`. margin: m."""

        form: Literal["ratio", "margin"] = "ratio"
        margin: Positive = 1.0

    options: Options

    def compare(self, vectors: Tensor, others: Tensor, truth: Tensor, beside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmbeddingLoss.compare`."""
        near = vectors @ others.T
        alike, unlike = tell_apart(truth, beside, valid)
        has = alike.any(1) & unlike.any(1)
        if self.options.form == "margin":
            return hinge(near, alike.to(near.dtype), unlike.to(near.dtype), float(self.options.margin)), has
        nearness = (1 + near) / 2
        p, q = (_mean(nearness, which.to(near.dtype)) for which in (alike, unlike))
        return (p + q + 2 * EPSILON).log() - (p + EPSILON).log(), has

    def average(self, values: Tensor, weight: Tensor, truth: Tensor) -> Tensor:
        """See `EmbeddingLoss.average`."""
        of = (truth[:, None] == torch.arange(self.size, device=truth.device)).to(weight.dtype)  # (R, C)
        totals = weight @ of  # (C,)
        return mean_rows(values, weight / (of @ totals).clamp(min=EPSILON))


def _mean(values: Tensor, which: Tensor) -> Tensor:
    return (values * which).sum(1) / which.sum(1).clamp(min=1)


def hinge(near: Tensor, alike: Tensor, unlike: Tensor, margin: float) -> Tensor:
    """(R,) the mean of max(0, n - p + margin) over all pairs of an unlike n and an alike p of each row of `near` (R, N).

    >>> hinge(torch.tensor([[0.5, 0.25, -1.0]]), torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 1.0]]), 0.5).tolist()
    [0.125]
    """
    # Sorted, each p meets the sum of what lies above p - margin: N log N instead of the N² pairs of each row.
    line, order = torch.cat([near, near - margin], 1).sort(1, descending=True)
    nothing = torch.zeros_like(alike)
    n = torch.cat([unlike, nothing], 1).expand_as(line).gather(1, order)
    p = torch.cat([nothing, alike], 1).expand_as(line).gather(1, order)
    over = (n * line).cumsum(1) - n.cumsum(1) * line
    pairs = alike.sum(1) * unlike.sum(1)
    return (p * over).sum(1) / pairs.clamp(min=1)
