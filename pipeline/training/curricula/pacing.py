"""Pacing: which share of the clips is seen at an epoch.

A pace is given by its name, `sqrt`, or with its parameters, `{name: step, start: 0.2, every: 3}`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from pipeline.errors import one_of
from pipeline.params.base import Count, Group, Positive
from pipeline.parts import read_options

#: Key that an error names.
WHERE = "training.curriculum.options.pace"
Start = Annotated[Positive, Field(le=1)]


class Pacing(Group, ABC):
    """A pace with its parameters."""

    @abstractmethod
    def share(self, epoch: int, epochs: int) -> float:
        """Share at `epoch` (from 0) of `epochs`; more than 1 counts as 1."""


class Linear(Pacing):
    """(e + 1) / E."""

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return (epoch + 1) / epochs


class Sqrt(Pacing):
    """√((e + 1) / E)."""

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return math.sqrt((epoch + 1) / epochs)


class Log(Pacing):
    """ln(e + 2) / ln(E + 1)."""

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return math.log(epoch + 2) / math.log(epochs + 1)


class None_(Pacing):
    """All clips from the beginning."""

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return 1.0


class RootP(Pacing):
    """(e (1 - s^p) / E + s^p)^(1/p) (Platanios et al. 2019)."""

    start: Start = 0.1
    power: Positive = 2.0

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        first = float(self.start) ** self.power
        return float((epoch * (1 - first) / epochs + first) ** (1 / self.power))


class Geometric(Pacing):
    """s^(1 - e / E): the limit of `root_p` for small p (Penha & Hauff 2019)."""

    start: Start = 0.1

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return float(self.start ** (1 - epoch / epochs))


class Step(Pacing):
    """s + i ⌊e / n⌋: more by `increment` after every `every` epochs."""

    start: Start = 0.25
    increment: Start = 0.25
    every: Count = 4

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return float(self.start + self.increment * (epoch // self.every))


class Exp(Pacing):
    """s g^⌊e / n⌋: `growth` times as many after every `every` epochs (Hacohen & Weinshall 2019)."""

    start: Start = 0.1
    growth: Annotated[Positive, Field(gt=1)] = 2.0
    every: Count = 3

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        # From where it is sure to be above 1 it grows no more: no overflow.
        steps = min(epoch // self.every, math.ceil(-math.log(self.start) / math.log(self.growth)))
        return float(self.start * self.growth**steps)


class PercentileLinear(Pacing):
    """The easiest percentiles, from `start` to all: s + (1 - s) (e / E)."""

    start: Start = 0.1
    exponent: ClassVar[float] = 1.0

    def share(self, epoch: int, epochs: int) -> float:
        """See `Pacing.share`."""
        return float(self.start + (1 - self.start) * min(1.0, epoch / epochs) ** self.exponent)


class PercentileExponential(PercentileLinear):
    """Slow at first: s + (1 - s) (e / E)^1.5."""

    exponent: ClassVar[float] = 1.5


class PercentileLogarithmic(PercentileLinear):
    """Fast at first: s + (1 - s) √(e / E)."""

    exponent: ClassVar[float] = 0.5


PACES: dict[str, type[Pacing]] = {
    "linear": Linear,
    "sqrt": Sqrt,
    "log": Log,
    "none": None_,
    "root_p": RootP,
    "geometric": Geometric,
    "step": Step,
    "exp": Exp,
    "percentile_linear": PercentileLinear,
    "percentile_exponential": PercentileExponential,
    "percentile_logarithmic": PercentileLogarithmic,
}


def read_pace(given: Any) -> Any:
    """The pace of a name, or of a mapping of `name` and parameters.

    Raises:
        ParamsError: there is none of that name, or it has no such parameter.
    """
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        return given
    if given["name"] not in PACES:
        raise one_of("pace", given["name"], PACES)
    return read_options(PACES[given["name"]], {key: value for key, value in given.items() if key != "name"}, WHERE)


Pace = Annotated[Pacing, BeforeValidator(read_pace)]


def share_seen(pace: str | dict | Pacing, epoch: int, epochs: int) -> float:
    """Share of the clips seen at `epoch` (from 0) in (0, 1]; 1 when the `epochs` of the curriculum are over.

    Raises:
        ParamsError: see `read_pace`.

    >>> [round(share_seen("sqrt", epoch, 15), 3) for epoch in (0, 7, 14, 20)]
    [0.258, 0.73, 1.0, 1.0]
    """
    found: Pacing = read_pace(pace)
    return 1.0 if epoch >= epochs else min(1.0, found.share(epoch, epochs))
