"""Cross-entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.params.base import Share

from .base import EPSILON
from .class_weights import WeightedLoss, WeightedOptions


class CrossEntropy(WeightedLoss):
    """Mean of -log p_y weighted by class, with label smoothing (Szegedy et al. 2016)."""

    class Options(WeightedOptions):
        """label_smoothing: share of the truth that is spread over all classes."""

        label_smoothing: Share = 0.0

    options: Options

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        factors = self.factors.to(logits.dtype)
        smoothing = float(self.options.label_smoothing)
        values = F.cross_entropy(logits, truth, factors, reduction="none", label_smoothing=smoothing)
        # The library divides by the weights of the classes met; so does this, over the rows that take part.
        met = factors[truth]
        return (values * weight * (met > 0)).sum() / (met * weight).sum().clamp(min=EPSILON)
