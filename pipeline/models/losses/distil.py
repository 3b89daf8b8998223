"""What an ensemble says of a clip, as the truth of one model."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Group, Positive

from .base import Loss, mean_rows


def name_answers(output: str) -> str:
    """Where `Targets.taught` holds what the ensemble says.

    >>> name_answers("emotion@audio")
    'ensemble.emotion'
    """
    return f"ensemble.{output.partition('@')[0]}"


class Distil(Loss):
    """An ensemble teaches one model (Hinton, Vinyals and Dean 2015): the variant `student`, see `training/student.py`.

    On `emotion` the mean of T² KL(q ‖ p) with q and p the ensemble's and the model's chances, each softened by the temperature
    T (∝ chance^(1/T)); on `dimensions` the mean squared error. A clip that the ensemble was not asked about takes no part,
    one without labels does.
    """

    reads: ClassVar[tuple[str, ...]] = ("emotion", "dimensions")

    class Options(Group):
        """temperature: above 1 the small chances count more."""

        temperature: Positive = 2.0

    options: Options

    @property
    def unlabelled(self) -> bool:
        """See `Loss.unlabelled`."""
        return True

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        if name_answers(self.on) not in targets.taught:
            raise ParamsError("distil is the loss of the variant student; set training.student instead of naming it.")

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        rows, found = targets.taught[name_answers(self.on)], outputs[self.on].float()
        known = torch.isfinite(rows).all(1)
        wanted = rows.masked_fill(~known[:, None], 0.5)
        if self.on.partition("@")[0] == "dimensions":
            return mean_rows((found - wanted).square().mean(1), targets.weight * known)
        heat = float(self.options.temperature)
        log_q = (wanted.clamp(min=1e-12).log() / heat).log_softmax(1)
        gap = (log_q.exp() * (log_q - (found / heat).log_softmax(1))).sum(1)
        return mean_rows(heat**2 * gap, targets.weight * known)
