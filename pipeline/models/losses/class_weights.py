"""How much each class counts in a loss: by a rule, by a list, or by name."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import BeforeValidator
from torch import Tensor

from pipeline.errors import ParamsError, one_of
from pipeline.models.batch import Targets
from pipeline.params.base import Group

from .base import ClassLoss

#: Rule → weights (C,), of N / n_k (C,) and the number K of classes that occur.
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda rarity, occurring: torch.ones_like(rarity),
    "balanced": lambda rarity, occurring: rarity / occurring,
    "inverse": lambda rarity, occurring: rarity,
    "sqrt": lambda rarity, occurring: rarity.sqrt(),
}


def _read(value: object) -> object:
    if value is None or isinstance(value, bool):  # a flag, before rules had names
        return "balanced" if value else "none"
    if isinstance(value, Mapping):
        return dict(zip(map(str, value), _read_factors(list(value.values())), strict=True))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _read_factors(value)
    if value not in RULES:
        raise ValueError(f"one of {', '.join(RULES)}, a list with a weight per class, or {{class: weight}} is wanted")
    return value


def _read_factors(values: Sequence[object]) -> tuple[float, ...]:
    try:
        found = tuple(math.nan if isinstance(value, bool) else float(str(value)) for value in values)
    except ValueError:
        found = (math.nan,)
    if not all(0 <= value < math.inf for value in found) or not any(found):
        raise ValueError("weights are numbers from 0 on, and not all 0")
    return found


ClassWeights = Annotated[str | tuple[float, ...] | dict[str, float], BeforeValidator(_read)]


class WeightedOptions(Group):
    """class_weights: `none`; by the training clips `inverse` N / n_k, `sqrt` √(N / n_k) or `balanced` N / (K n_k), also
    written `true`; a list in the order of the classes; or {class: weight}, other classes 1.
    """

    class_weights: ClassWeights = "none"


class WeightedLoss(ClassLoss, ABC):
    """A loss whose classes count differently.

    Attributes:
        factors: (C,) weight of each class.

    Raises:
        ParamsError: a list of another length than there are classes, or a name that is no class.
    """

    options: WeightedOptions
    factors: Tensor

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__(on, size, options, classes)
        self.register_buffer("factors", self.weigh(), persistent=False)

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        super().observe(targets)
        self.factors = self.weigh()

    def weigh(self) -> Tensor:
        """(C,) weights by what was observed."""
        chosen = self.options.class_weights
        if isinstance(chosen, str):
            return weigh_classes(self.counts, chosen)
        if isinstance(chosen, dict):
            return name_factors(chosen, self.classes, self.on).to(self.counts)
        if len(chosen) != self.size:
            named = f": {', '.join(self.classes)}" if self.classes else ""
            raise ParamsError(f"class_weights has {len(chosen)} weights for the {self.size} classes of {self.on}{named}.")
        return self.counts.new_tensor(chosen)


def weigh_classes(counts: Tensor, rule: str) -> Tensor:
    """Weights by a rule, see `RULES`.

    >>> weigh_classes(torch.tensor([3.0, 1.0, 0.0]), "balanced").tolist()
    [0.6666666865348816, 2.0, 1.0]
    """
    rarity = counts.sum() / counts.clamp(min=1)
    return fill_absent(RULES[rule](rarity, (counts > 0).sum().clamp(min=1)), counts)


def fill_absent(weights: Tensor, counts: Tensor) -> Tensor:
    """A class that does not occur weighs what a clip does in the mean; 1 when none occurs."""
    mean = torch.where(counts.sum() > 0, (weights * counts).sum() / counts.sum().clamp(min=1), 1.0)
    return torch.where(counts > 0, weights, mean)


def name_factors(chosen: Mapping[str, float], classes: Sequence[str], on: str) -> Tensor:
    """(C,) weights given by name, 1 for classes not named.

    Raises:
        ParamsError: there is no such class, or the classes of this output have no names.
    """
    if not classes:
        raise ParamsError(f"weights by name are for the emotions; write those of {on} as a list.")
    for name in chosen:
        if name not in classes:
            raise one_of("class", name, classes)
    return torch.tensor([chosen.get(name, 1.0) for name in classes])
