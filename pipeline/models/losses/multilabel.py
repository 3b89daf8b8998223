"""Every class asked for by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import mean_rows
from .class_weights import WeightedLoss, WeightedOptions


class Multilabel(WeightedLoss):
    """Mean over clips and classes of the binary cross-entropy, one class against the rest.

    For many classes that exclude each other little, as the 27 of GoEmotions (Demszky et al. 2020). The truth of a clip is
    one class, and its chances are the softmax of these logits, which sum to 1.
    """

    class Options(WeightedOptions):
        """class_weights: of the clips that are of the class, beside those that are not."""

    options: Options

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        wanted = (truth[:, None] == torch.arange(self.size, device=truth.device)).to(logits.dtype)  # (R, C)
        factors = self.factors.to(logits.dtype)
        values = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=factors, reduction="none")
        return mean_rows(values.mean(-1), weight)
