"""By chance."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import Roll
from .ordering import Ordered


class Random(Ordered):
    """Clips in an order drawn once, by the run's seed: what pacing does without an order."""

    place: Tensor

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        chance = torch.Generator().manual_seed(roll.seed)
        self.place = torch.randperm(len(roll.emotion), generator=chance).to(roll.emotion.device).double()

    def score(self, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Ordered.score`."""
        return self.place
