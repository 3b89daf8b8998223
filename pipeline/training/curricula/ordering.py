"""Curricula that show a growing share of the clips: an order, a pace, and the classes' guarantee."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Count, Group, Whole

from .base import Curriculum, Roll
from .pacing import Pace, Sqrt, share_seen
from .scaling import DifficultyWeights, Scaling


class PaceOptions(Group):
    """What all paced curricula know.

    Attributes:
        epochs: of the curriculum; after them all clips are seen. pace: see `pacing`.
        scaling: also weigh clips by difficulty; null = all that are seen alike.
    """

    epochs: Count = 15
    pace: Pace = Field(default_factory=Sqrt)
    scaling: Scaling | None = None


class Paced(Curriculum):
    """Base: which clips are seen depends on the share that is."""

    Options: ClassVar[type[PaceOptions]] = PaceOptions
    options: PaceOptions
    batch: int = 1
    weights: DifficultyWeights | None = None

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        self.batch = roll.batch
        if self.options.scaling is not None:
            self.weights = DifficultyWeights(self.options.scaling, roll)

    @abstractmethod
    def see(self, share: float, targets: Targets, last: Outputs | None) -> Tensor:
        """(n,) bool, the clips seen."""

    def weigh(self, epoch: int, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Curriculum.weigh`."""
        seen = self.see(share_seen(self.options.pace, epoch, self.options.epochs), targets, last)
        weight = torch.ones_like(targets.weight) if self.weights is None else self.weights.weigh(epoch)
        return weight * seen


class OrderOptions(PaceOptions):
    """What all orders know.

    Attributes:
        guarantee: the first so many clips of every class are always seen.
    """

    guarantee: Annotated[Whole, Field(ge=0)] = 2


class Ordered(Paced):
    """Base: clips by a score, the lowest first; at least a batch, and at least `guarantee` of every class."""

    Options: ClassVar[type[OrderOptions]] = OrderOptions
    options: OrderOptions

    @abstractmethod
    def score(self, targets: Targets, last: Outputs | None) -> Tensor | None:
        """(n,) low first; NaN: not known, at the end. None: all clips are seen, for want of a score."""

    def see(self, share: float, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Paced.see`."""
        score = self.score(targets, last)
        if score is None:
            return torch.ones_like(targets.emotion, dtype=torch.bool)
        order = score.nan_to_num(float("inf"), posinf=float("inf"), neginf=float("-inf")).argsort(stable=True)
        count = max(1, round(share * len(order)), min(self.batch, len(order)))
        seen = torch.zeros_like(targets.emotion, dtype=torch.bool)
        seen[order[:count]] = True
        emotion = targets.emotion[order]
        for k in emotion[emotion >= 0].unique():
            seen[order[emotion == k][: self.options.guarantee]] = True
        return seen
