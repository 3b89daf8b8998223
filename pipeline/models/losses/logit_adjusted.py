"""Cross-entropy of logits that know how frequent the classes are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.params.base import Group, Number

from .base import ClassLoss, mean_rows


class LogitAdjusted(ClassLoss):
    """Mean of -log softmax(z + τ log π)_y, π the share of each class among the training clips (Menon et al. 2021).

    What is predicted is z alone, hence as if all classes were equally frequent. A class that does not occur counts as
    one clip.
    """

    class Options(Group):
        """tau: τ; 0 = cross-entropy."""

        tau: Number = 1.0

    options: Options

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        counts = self.counts.clamp(min=1)
        shift = float(self.options.tau) * (counts / counts.sum()).log().to(logits.dtype)
        return mean_rows(F.cross_entropy(logits + shift, truth, reduction="none"), weight)
