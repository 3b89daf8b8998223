"""By difficulty."""

from __future__ import annotations

from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import Roll
from .ordering import Ordered, OrderOptions
from .prototypes import DifficultyOptions, measure_difficulty


class Difficulty(Ordered):
    """The easiest clips first: those nearest to the prototype of their class in valence, arousal and dominance.

    A clip without emotion or without one of the dimensions joins at the end.
    """

    class Options(DifficultyOptions, OrderOptions):
        """See `DifficultyOptions`, `OrderOptions`."""

    options: Options
    difficulty: Tensor

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        self.difficulty = measure_difficulty(self.options, roll)

    def score(self, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Ordered.score`."""
        return self.difficulty
