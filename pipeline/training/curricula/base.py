"""Curricula: weights of the training clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Group
from pipeline.parts import Parts


class Curriculum(ABC):
    """Base.

    Attributes:
        looks: it wants the model's outputs of the epoch before on all training clips.
    """

    Options: ClassVar[type[Group]] = Group
    looks: ClassVar[bool] = False

    def __init__(self, options: Group) -> None:
        self.options = options

    @abstractmethod
    def weigh(self, epoch: int, targets: Targets, last: Outputs | None) -> Tensor:
        """(n,) weights of the training clips in this epoch (from 0); 0 = not seen.

        Args:
            targets: of all training clips. last: their outputs after the epoch before; None at the first.
        """


CURRICULA: Parts[Curriculum] = Parts("pipeline.training.curricula", Curriculum, "curriculum")
