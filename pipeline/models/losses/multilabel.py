"""Every class asked for by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import mean_rows
from .class_weights import WeightedLoss, WeightedOptions


class Multilabel(WeightedLoss):
    """Mean over clips and classes of the binary cross-entropy, one class against the rest.

    For many classes that exclude each other little, as the 27 of GoEmotions (Demszky et al. 2020). A clip is of every class
    that the corpus gives it (`Targets.several`), else of its one. Its chances are the softmax of these logits, which sum to 1.
    """

    class Options(WeightedOptions):
        """class_weights: of the clips that are of the class, beside those that are not."""

    options: Options

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        super().observe(targets)
        if (several := self.read_several(targets)) is not None:
            self.counts = several[targets.of(self.on) >= 0].sum(0).to(self.counts)
            self.factors = self.weigh()

    def read_several(self, targets: Targets) -> Tensor | None:
        """(R, C) the classes of each clip where some have several."""
        return targets.several if self.on.partition("@")[0] == "emotion" else None

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        if (several := self.read_several(targets)) is None:
            return super().forward(outputs, targets)
        return self.compare(outputs[self.on], several, targets.weight * (targets.of(self.on) >= 0))

    def score(self, logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """See `ClassLoss.score`."""
        return self.compare(logits, truth[:, None] == torch.arange(self.size, device=truth.device), weight)

    def compare(self, logits: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
        """(R, C), (R, C) bool, (R,) weights, 0 = no part → scalar."""
        factors = self.factors.to(logits.dtype)
        values = F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), pos_weight=factors, reduction="none")
        return mean_rows(values.mean(-1), weight)
