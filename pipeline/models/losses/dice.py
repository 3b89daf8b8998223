"""Soft Dice."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import EPSILON, ClassLoss, mean_rows


class Dice(ClassLoss):
    """1 - mean of 2 TP_k / (2 TP_k + FP_k + FN_k), in probabilities, over the classes present in the batch.

    After Milletari et al. 2016. Classes that are absent are left out: their score is 0 however right the batch is.
    """

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        wanted = (truth[:, None] == torch.arange(self.size, device=truth.device)).to(logits.dtype)  # (R, C)
        given = logits.softmax(-1)
        hits = (weight[:, None] * given * wanted).sum(0)
        met = (weight[:, None] * wanted).sum(0)
        both = (weight[:, None] * given).sum(0) + met  # 2 TP + FP + FN
        return mean_rows(1 - 2 * hits / both.clamp(min=EPSILON), (met > 0).to(logits.dtype))
