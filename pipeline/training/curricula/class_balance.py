"""Class by class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.errors import ParamsError, one_of
from pipeline.models.batch import Outputs, Targets

from .base import Roll
from .ordering import Paced, PaceOptions


class ClassBalance(Paced):
    """A class more at a time: ⌊share · K⌋ + 1 of the K classes that training clips have.

    A clip without a class joins with the last of them.
    """

    class Options(PaceOptions):
        """order: of the classes, by name; those it leaves out follow, the most frequent first."""

        order: tuple[str, ...] = ()

    options: Options
    order: Tensor

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        roll.need_classes("class_balance")
        for name in self.options.order:
            if name not in roll.classes:
                raise one_of("class in training.curriculum.options.order", name, roll.classes)
            if self.options.order.count(name) > 1:
                raise ParamsError(f"training.curriculum.options.order names {name!r} twice.")
        counts = torch.bincount(roll.emotion[roll.emotion >= 0], minlength=len(roll.classes)).tolist()
        asked = {roll.classes.index(name): place for place, name in enumerate(self.options.order)}
        found = [k for k, count in enumerate(counts) if count]
        found.sort(key=lambda k: (asked.get(k, len(asked)), -counts[k], k))
        self.order = torch.tensor(found, dtype=torch.int64, device=roll.emotion.device)

    def see(self, share: float, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Paced.see`."""
        total = len(self.order)
        # A share that is a whole number of classes must not lose one to the last bit.
        count = math.floor(share * total + 1e-9) + 1
        if count >= total:
            return torch.ones_like(targets.emotion, dtype=torch.bool)
        return torch.isin(targets.emotion, self.order[:count])
