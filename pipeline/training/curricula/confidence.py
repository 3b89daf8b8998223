"""By the model's own confidence."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Count, Group

from .base import Curriculum
from .pacing import Pace, share_seen


class Confidence(Curriculum):
    """The clips of which the model was surest after the epoch before, a growing share of them; all at the first.

    Sureness is the largest probability, whatever the truth (self-paced learning by the model's confidence).
    """

    class Options(Group):
        """epochs: of the curriculum; after them all clips are seen. pace: see `pacing`."""

        epochs: Count = 15
        pace: Pace = "sqrt"

    looks: ClassVar[bool] = True
    options: Options

    def weigh(self, epoch: int, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Curriculum.weigh`."""
        weight = torch.zeros_like(targets.weight)
        count = max(1, round(share_seen(self.options.pace, epoch, self.options.epochs) * len(weight)))
        if last is None or "emotion" not in last:
            return torch.ones_like(weight)
        sureness = last["emotion"].softmax(-1).amax(-1)
        weight[sureness.argsort(descending=True, stable=True)[:count]] = 1.0
        return weight
