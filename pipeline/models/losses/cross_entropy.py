"""Cross-entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.params.base import Flag, Group, Share

from .base import ClassLoss, mean_rows


class CrossEntropy(ClassLoss):
    """Weighted mean of -log p_y, with label smoothing (Szegedy et al. 2016)."""

    class Options(Group):
        """class_weights: by inverse frequency among the training clips."""

        class_weights: Flag = False
        label_smoothing: Share = 0.0

    options: Options

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        smoothing = float(self.options.label_smoothing)
        if not self.options.class_weights:
            return mean_rows(F.cross_entropy(logits, truth, reduction="none", label_smoothing=smoothing), weight)
        frequency = self.frequency.to(logits.dtype)
        values = F.cross_entropy(logits, truth, frequency, reduction="none", label_smoothing=smoothing)
        # The library divides by the weights of the classes met; so does this, over the rows that take part.
        share = frequency[truth] * weight
        return mean_rows(values / frequency[truth], share)
