"""Difficulty of a clip: the distance of its valence, arousal and dominance from the prototype of its class."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from pipeline.data.names import emotion as common_name
from pipeline.errors import ParamsError, StoreError, one_of
from pipeline.params.base import Flag, Group, Number

from .base import AFFECT, Roll
from .measures import MEASURES, WEIGHTS, Measure, Pairs

#: Common name of an emotion → valence, arousal, dominance from 1 to 5.
DEFAULTS = {
    "neutral": (3.0, 2.5, 3.0),
    "joy": (4.0, 3.8, 3.8),
    "sadness": (1.8, 2.2, 2.0),
    "anger": (1.8, 4.2, 4.0),
}


class Point(Group):
    """A number for each dimension, by its name."""

    valence: Number | None = None
    arousal: Number | None = None
    dominance: Number | None = None

    def of(self, names: tuple[str, ...], what: str) -> list[float]:
        """The numbers of these dimensions.

        Raises:
            ParamsError: one is lacking.
        """
        values: list[float | None] = [getattr(self, name) for name in names]
        for name, value in zip(names, values, strict=True):
            if value is None:
                raise ParamsError(f"{what} has no {name}; give it.")
        return [float(value) for value in values if value is not None]


class DifficultyOptions(Group):
    """How difficulty is measured.

    Attributes:
        measure: see `measures`. weights: of the two that have them; null = .4/.4/.2 and .5/.3/.2.
        prototypes: class → its point on `scale`. A class is meant by its own or its common name (`happy`, `joy`).
        learned: a class without one has the mean of its training clips; else the published one (`DEFAULTS`).
        dimensions: those looked at; null = those that training clips have.
        scale: low and high end, on which prototypes are given and distances taken.
    """

    measure: Measure = "euclidean"
    weights: Point | None = None
    prototypes: dict[str, Point] = {}
    learned: Flag = False
    dimensions: tuple[Literal["valence", "arousal", "dominance"], ...] | None = None
    scale: tuple[Number, Number] = (1.0, 5.0)

    @model_validator(mode="after")
    def _fits(self) -> DifficultyOptions:
        low, high = self.scale
        if low >= high:
            raise ValueError(f"scale: {low} is not below {high}")
        if self.weights is not None and self.measure not in WEIGHTS:
            raise ValueError(f"{self.measure} has no weights; {' and '.join(WEIGHTS)} have")
        if self.dimensions is not None and len(set(self.dimensions)) != max(1, len(self.dimensions)):
            raise ValueError("dimensions: one at least, and none twice")
        for name, point in self.prototypes.items():
            for value in point.model_dump().values():
                if value is not None and not low <= value <= high:
                    raise ValueError(f"prototypes.{name}: {value} is not between {low} and {high}")
        return self


def measure_difficulty(options: DifficultyOptions, roll: Roll, where: str = "training.curriculum.options") -> Tensor:
    """(n,) float64 difficulty of the training clips; NaN of one without emotion or one of the dimensions.

    Args:
        where: key of the options, for errors.

    Raises:
        ParamsError: a prototype is of no class, or a class has none.
        StoreError: no training clip has what is needed.
    """
    names: tuple[str, ...] = options.dimensions or tuple(name for name in AFFECT if bool(roll.affect[name].isfinite().any()))
    low, high = map(float, options.scale)
    points = torch.stack([low + (roll.affect[name] + 1) / 2 * (high - low) for name in names or AFFECT], 1)
    known = points.isfinite().all(1) & (roll.emotion >= 0)
    if not bool(known.any()):
        wanted = ", ".join(names or AFFECT)
        raise StoreError(f"{where}: difficulty needs an emotion and {wanted}, and no training clip has them; see the manifest.")
    prototypes = torch.full((len(roll.classes), len(names)), float("nan"), dtype=torch.float64, device=points.device)
    given = _match(options, roll.classes, where)
    for k in roll.emotion[known].unique().tolist():
        members = points[known & (roll.emotion == k)]
        place = _find_prototype(options, roll.classes[k], given, names, members, where)
        prototypes[k] = place.to(points)
    neutral = torch.tensor([common_name(name) == "neutral" for name in roll.classes], device=points.device)
    whole = WEIGHTS.get(options.measure, (1.0, 1.0, 1.0))
    default = [weight for name, weight in zip(AFFECT, whole, strict=True) if name in names]
    chosen = options.weights.of(names, f"{where}.weights") if options.weights else default
    weights = torch.tensor(chosen, dtype=torch.float64, device=points.device)
    at = roll.emotion.clamp(min=0)
    pairs = Pairs(points, prototypes[at], neutral[at], weights, low, high)
    return MEASURES[options.measure](pairs).masked_fill(~known, float("nan"))


def _match(options: DifficultyOptions, classes: tuple[str, ...], where: str) -> dict[str, str]:
    """Class → the name its prototype is given under."""
    found: dict[str, str] = {}
    for name in options.prototypes:
        same = [one for one in classes if one == name] or [
            one for one in classes if common_name(name) == common_name(one) is not None
        ]
        if not same:
            raise one_of(f"class in {where}.prototypes", name, classes)
        for one in same:
            if one == name or one not in found:
                found[one] = name
    return found


def _find_prototype(
    options: DifficultyOptions, name: str, given: dict[str, str], names: tuple[str, ...], members: Tensor, where: str
) -> Tensor:
    if name in given:
        key = given[name]
        return torch.tensor(options.prototypes[key].of(names, f"{where}.prototypes.{key}"), dtype=torch.float64)
    if options.learned:
        return members.mean(0)
    common = common_name(name)
    if common not in DEFAULTS:
        raise ParamsError(f"{where}.prototypes has none of {name!r}; give one, or say `learned: true`.")
    low, high = map(float, options.scale)
    default = dict(zip(AFFECT, DEFAULTS[common], strict=True))
    return torch.tensor([low + (default[one] - 1) / 4 * (high - low) for one in names], dtype=torch.float64)
