"""What changes on the way through a phase: weights of the clips, dropout, learning rate, strength of adversaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, Targets
from pipeline.models.component import advance
from pipeline.models.model import EmotionModel
from pipeline.params import Params

from .curricula.base import Curriculum, Roll, last_epoch, read_curriculum
from .dropout import DropoutPlan
from .optimiser import set_rate
from .schedules import Moment, Schedule, read_schedule


@dataclass(frozen=True)
class Plan:
    """All of it follows from the epoch, the step and what is saved: a resumed run is the uninterrupted one.

    Attributes:
        curriculum: it has seen the training clips. spared: epochs of a phase that patience does not count.
    """

    curriculum: Curriculum | None
    schedule: Schedule
    dropout: DropoutPlan
    spared: int

    @classmethod
    def make(cls, params: Params, model: EmotionModel, roll: Roll) -> Plan:
        """The plan of `params.training` for a model and its training clips.

        Raises:
            ParamsError: a name or an option is wrong, or does not fit the clips or the model.
            StoreError: the clips lack what the curriculum goes by.
        """
        training = params.training
        curriculum, length = read_curriculum(training.curriculum), last_epoch(training.curriculum)
        if curriculum is not None:
            curriculum.observe(roll)
        whole = len(model.spec.streams) >= len(params.inputs)
        dropout = DropoutPlan(model, training.dropout, length, strict=whole)
        return cls(curriculum, read_schedule(training), dropout, length or 0 if training.patience_from == "curriculum" else 0)

    @property
    def looks(self) -> bool:
        """Whether the curriculum wants outputs of the epoch before."""
        return self.curriculum is not None and self.curriculum.looks

    def weigh(self, epoch: int, targets: Targets, last: Outputs | None) -> Tensor | None:
        """(n,) weights of the training clips; None: all alike."""
        return None if self.curriculum is None else self.curriculum.weigh(epoch, targets, last)

    def step(self, model: EmotionModel, optimiser: torch.optim.Optimizer, now: Moment) -> None:
        """Set rate, dropout and strength for one step."""
        set_rate(optimiser, self.schedule.factor(now))
        advance(model, now.done / now.total)
        if now.step == 0:
            self.dropout.set(now.epoch)


def recall_losses(history: Sequence[dict[str, float | str]], epochs: int) -> list[float]:
    """Validation losses of the last `epochs` epochs."""
    return [float(row["val_loss"]) for row in history[len(history) - epochs :]]
