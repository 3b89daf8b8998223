"""What another model says of a clip, as its truth."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.errors import ParamsError, one_of
from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Group

from .base import Loss, mean_rows


class PseudoLabel(Loss):
    """A stream teaches a head (Hinton et al. 2015): its rows, their mean over a clip, are chances of classes or values.

    On `emotion` the mean of -Σ_k q_k log p_k, q the chances of the classes named, scaled to sum to 1; on `dimensions` the mean
    squared error. The model does not read that stream. A clip that lacks it takes no part, one without labels does.
    """

    reads: ClassVar[tuple[str, ...]] = ("emotion", "dimensions")

    class Options(Group):
        """teacher: the stream. classes: for `emotion`, the class each number of its rows is of, in order; null = of none."""

        teacher: str
        classes: tuple[str | None, ...] = ()

    options: Options
    columns: Tensor

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__(on, size, options, classes)
        named = self.options.classes
        if (self.on.partition("@")[0] == "emotion") != bool(named):
            wanted = "classes names what the numbers of the teacher's rows are of" if not named else "classes are of the emotion"
            raise ParamsError(f"options.{wanted}; this term is on {self.on}.")
        for name in named:
            if name is not None and name not in classes:
                raise one_of("class of the teacher", name, classes)
        # (D, C): which number of a row is of which class, or dimension.
        chosen = [[float(name == one) for one in classes] for name in named] if named else torch.eye(size).tolist()
        self.register_buffer("columns", torch.tensor(chosen), persistent=False)

    @property
    def unlabelled(self) -> bool:
        """See `Loss.unlabelled`."""
        return True

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        rows, teacher = targets.taught[self.options.teacher], self.options.teacher
        if rows.ndim != 2 or rows.shape[1] != len(self.columns):
            shape = " x ".join(map(str, rows.shape[1:]))
            raise ParamsError(f"the teacher {teacher} has rows of {shape} numbers, and {len(self.columns)} are wanted.")
        known = rows[torch.isfinite(rows).all(1)]
        if not len(known):
            raise ParamsError(f"no training clip has the stream {teacher}, which is the teacher.")
        low = 0.0 if self.options.classes else -1.0
        if bool(((known < low - 1e-3) | (known > 1 + 1e-3)).any()):
            what = "chances from 0 to 1" if self.options.classes else "values from -1 to 1"
            raise ParamsError(f"the rows of the teacher {teacher} are no {what}.")

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        rows = targets.taught[self.options.teacher]
        known = torch.isfinite(rows).all(1)
        wanted = rows.masked_fill(~known[:, None], 0.0).to(self.columns) @ self.columns  # (R, C)
        found = outputs[self.on].float()
        if not self.options.classes:
            return mean_rows((found - wanted).square().mean(1), targets.weight * known)
        total = wanted.clamp(min=0).sum(1)
        chance = wanted.clamp(min=0) / total.clamp(min=1e-6)[:, None]
        return mean_rows(-(chance * found.log_softmax(1)).sum(1), targets.weight * known * (total > 1e-6))
