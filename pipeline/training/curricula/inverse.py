"""Against difficulty."""

from __future__ import annotations

from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .difficulty import Difficulty


class Inverse(Difficulty):
    """The most difficult clips first; options and clips at the end as in `difficulty`."""

    def score(self, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Ordered.score`."""
        return -self.difficulty
