"""The learning rate over the steps of a phase, as a factor of its peak.

Without state: what a schedule needs to know of the past is in the run's history, so that what a resumed run computes is what
an uninterrupted one does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.errors import ParamsError, one_of
from pipeline.params import Training
from pipeline.params.base import Count, Group, Positive, Share
from pipeline.parts import read_options

from .curricula.base import last_epoch

Factor = Annotated[Positive, Field(le=1)]


@dataclass(frozen=True)
class Moment:
    """Where a phase stands.

    Attributes:
        epoch: from 0. step: of the epoch, from 0. steps: of every epoch. epochs: of the phase.
        losses: on validation, of the epochs of this phase so far.
    """

    epoch: int
    step: int
    steps: int
    epochs: int
    losses: Sequence[float] = ()

    @property
    def done(self) -> int:
        """Steps of the phase done; never in the next epoch, however many batches a sampler makes."""
        return self.epoch * self.steps + min(self.step, self.steps - 1)

    @property
    def total(self) -> int:
        """Steps of the phase."""
        return self.epochs * self.steps


class Schedule(ABC):
    """Base.

    Args:
        warmup: share of the phase over which the rate rises. curriculum: epochs of the curriculum, None without one.
    """

    Options: ClassVar[type[Group]] = Group

    def __init__(self, options: Group, warmup: float, curriculum: int | None) -> None:
        self.options, self.warmup, self.curriculum = options, warmup, curriculum

    @abstractmethod
    def factor(self, now: Moment) -> float:
        """Of the peak rate, in this step."""


class Warmed(Schedule):
    """Base: rises linearly over the warm-up, its first step above 0, and goes its way."""

    def factor(self, now: Moment) -> float:
        """See `Schedule.factor`."""
        rise = round(self.warmup * now.total)
        return min(1.0, (now.done + 1) / rise if rise else 1.0) * self.fall(now, rise)

    @abstractmethod
    def fall(self, now: Moment, rise: int) -> float:
        """What the factor is without the warm-up of `rise` steps."""


class Constant(Warmed):
    """Stays."""

    def fall(self, now: Moment, rise: int) -> float:
        """See `Warmed.fall`."""
        return 1.0


class Cosine(Warmed):
    """Along a cosine to `least`."""

    class Options(Group):
        """least: of the peak, where it ends."""

        least: Share = 0.0

    options: Options

    def fall(self, now: Moment, rise: int) -> float:
        """See `Warmed.fall`."""
        least = float(self.options.least)
        return least + (1 - least) * fall_cosine(max(0, now.done - rise), now.total - rise)


class Step(Warmed):
    """Times `gamma` after every `every` epochs."""

    class Options(Group):
        """every: epochs. gamma: factor."""

        every: Count = 10
        gamma: Factor = 0.5

    options: Options

    def fall(self, now: Moment, rise: int) -> float:
        """See `Warmed.fall`."""
        return float(self.options.gamma ** (now.epoch // self.options.every))


class Exponential(Warmed):
    """Times `gamma` after every epoch."""

    class Options(Group):
        """gamma: factor."""

        gamma: Factor = 0.95

    options: Options

    def fall(self, now: Moment, rise: int) -> float:
        """See `Warmed.fall`."""
        return float(self.options.gamma**now.epoch)


class Plateau(Warmed):
    """Times `factor` whenever the validation loss has not gone down for `patience` epochs."""

    class Options(Group):
        """patience: epochs. factor: of the rate. delta: by how much less a loss counts as less. least: of the peak."""

        patience: Count = 5
        factor: Factor = 0.5
        delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
        least: Factor = 1e-3

    options: Options

    def fall(self, now: Moment, rise: int) -> float:
        """See `Warmed.fall`."""
        best, waited, times = math.inf, 0, 0
        for loss in now.losses:
            if loss < best - self.options.delta:
                best, waited = loss, 0
            else:
                waited += 1
            if waited == self.options.patience:
                times, waited = times + 1, 0
        return float(max(self.options.least, self.options.factor**times))


class OneCycle(Schedule):
    """Up over the warm-up from 1/`divisor`, then down to `least`, both along a cosine (Smith & Topin 2018)."""

    class Options(Group):
        """divisor: of the peak, where it begins. least: of the peak, where it ends."""

        divisor: Annotated[Positive, Field(ge=1)] = 25.0
        least: Factor = 4e-6

    options: Options

    def factor(self, now: Moment) -> float:
        """See `Schedule.factor`."""
        rise = round(self.warmup * now.total)
        first, last = 1 / self.options.divisor, float(self.options.least)
        if now.done < rise:
            return 1 - (1 - first) * fall_cosine(now.done, rise)
        return last + (1 - last) * fall_cosine(now.done - rise, now.total - rise)


class WithCurriculum(Schedule):
    """High while there are few easy clips, low at the curriculum's end, then up again: no warm-up.

    Over the curriculum from `start` to `end` times the rate, then from `after` times to 0, each along a cosine.
    """

    class Options(Group):
        """start, end, after: factors. epochs: null = those of the curriculum."""

        start: Positive = 3.0
        end: Positive = 0.2
        after: Positive = 2.0
        epochs: Count | None = None

    options: Options

    def __init__(self, options: Group, warmup: float, curriculum: int | None) -> None:
        super().__init__(options, warmup, curriculum)
        if self.options.epochs is None and curriculum is None:
            raise ParamsError("training.schedule 'curriculum' needs training.curriculum, or schedule.options.epochs.")

    def factor(self, now: Moment) -> float:
        """See `Schedule.factor`."""
        chosen = self.options.epochs or self.curriculum
        assert chosen is not None
        first = min(chosen, now.epochs) * now.steps
        start, end, after = (float(value) for value in (self.options.start, self.options.end, self.options.after))
        if now.done < first:
            return end + (start - end) * fall_cosine(now.done, first - 1)
        return after * fall_cosine(now.done - first, now.total - first)


def fall_cosine(step: int, total: int) -> float:
    """From 1 at step 0 to 0 at step `total`, along half a cosine.

    >>> [round(fall_cosine(step, 4), 2) for step in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * step / max(1, total)))


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "none": Constant,
    "cosine": Cosine,
    "step": Step,
    "exponential": Exponential,
    "plateau": Plateau,
    "one_cycle": OneCycle,
    "curriculum": WithCurriculum,
}


def read_schedule(training: Training) -> Schedule:
    """The schedule of `training.schedule`.

    Raises:
        ParamsError: there is none of that name, an option is wrong, or it needs what is not there.
    """
    chosen = training.schedule
    if chosen.name not in SCHEDULES:
        raise one_of("schedule", chosen.name, SCHEDULES)
    if chosen.name == "plateau" and training.refit:
        raise ParamsError("training.schedule 'plateau' goes by validation, from which training.refit learns; choose another.")
    part = SCHEDULES[chosen.name]
    options = read_options(part.Options, chosen.options, "training.schedule.options")
    return part(options, float(training.warmup), last_epoch(training.curriculum))
