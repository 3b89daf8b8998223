"""By the model's own confidence."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import Roll
from .ordering import Ordered


class Confidence(Ordered):
    """The clips of which the model was surest after the epoch before, a growing share of them; all at the first.

    Sureness is the largest probability, whatever the truth (self-paced learning by the model's confidence).
    """

    looks: ClassVar[bool] = True

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        roll.need_classes("confidence")

    def score(self, targets: Targets, last: Outputs | None) -> Tensor | None:
        """See `Ordered.score`."""
        if last is None or "emotion" not in last:
            return None
        return -last["emotion"].softmax(-1).amax(-1)
