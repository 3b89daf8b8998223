"""By the loss of the epoch before."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import Roll
from .ordering import Ordered


class Loss(Ordered):
    """The clips first whose class the model knew best after the epoch before; all at the first (Kumar et al. 2010).

    That is the cross-entropy of the emotion; a clip without one joins at the end.
    """

    looks: ClassVar[bool] = True

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        roll.need_classes("loss")

    def score(self, targets: Targets, last: Outputs | None) -> Tensor | None:
        """See `Ordered.score`."""
        if last is None or "emotion" not in last:
            return None
        loss = F.cross_entropy(last["emotion"], targets.emotion.clamp(min=0), reduction="none")
        return loss.masked_fill(targets.emotion < 0, float("nan"))
