"""Curricula: weights of the training clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import polars as pl
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Outputs, Targets
from pipeline.params import Part
from pipeline.params.base import Group
from pipeline.parts import Parts, read_options

#: The dimensions of affect a manifest has.
AFFECT = ("valence", "arousal", "dominance")


@dataclass(frozen=True)
class Roll:
    """What a curriculum may know of the n training clips, beside their targets.

    Attributes:
        table: (n rows) of the manifest. classes: names, in the order of the targets.
        emotion: (n,) int64, -1 unknown. affect: by name, (n,) float64 in [-1, 1], NaN unknown.
        batch: clips of a batch. seed: of the run.
    """

    table: pl.DataFrame
    classes: tuple[str, ...]
    emotion: Tensor
    affect: Mapping[str, Tensor] = field(default_factory=dict)
    batch: int = 1
    seed: int = 0

    def need_classes(self, curriculum: str) -> None:
        """Raise where no emotion is predicted.

        Raises:
            ParamsError: `curriculum` goes by it.
        """
        if not self.classes:
            raise ParamsError(f"training.curriculum: {curriculum} goes by the emotion, which is not predicted; see task.emotion.")


class Curriculum(ABC):
    """Base.

    Attributes:
        looks: it wants the model's outputs of the epoch before on all training clips.
    """

    Options: ClassVar[type[Group]] = Group
    looks: ClassVar[bool] = False

    def __init__(self, options: Group) -> None:
        self.options = options

    @property
    def files(self) -> tuple[Path, ...]:
        """Files it reads; what they hold is in the identity of a run."""
        return ()

    def observe(self, roll: Roll) -> None:  # noqa: B027 (most need nothing)
        """See the training clips, once, before the first epoch.

        Raises:
            ParamsError: an option does not fit them.
            StoreError: they lack what it needs.
        """

    @abstractmethod
    def weigh(self, epoch: int, targets: Targets, last: Outputs | None) -> Tensor:
        """(n,) weights of the training clips in this epoch (from 0); 0 = not seen.

        Args:
            targets: of all training clips. last: their outputs after the epoch before; None at the first.
        """


CURRICULA: Parts[Curriculum] = Parts("pipeline.training.curricula", Curriculum, "curriculum")


def read_curriculum(chosen: Part | None) -> Curriculum | None:
    """The curriculum of `training.curriculum`; None where there is none.

    Raises:
        ParamsError: there is none of that name, or an option is wrong.
    """
    if chosen is None:
        return None
    part = CURRICULA.find(chosen.name)
    return part(read_options(part.Options, chosen.options, "training.curriculum.options"))


def last_epoch(chosen: Part | None) -> int | None:
    """Epochs of the curriculum, after which every clip is seen; None where there is none, or it does not say."""
    curriculum = read_curriculum(chosen)
    return getattr(curriculum.options, "epochs", None) if curriculum else None
