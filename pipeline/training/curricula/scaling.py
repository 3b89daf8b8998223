"""Difficulty scaling: weights of the clips by how difficult they are, beside the order in which they are seen."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.params.base import Count, Number

from .base import Roll
from .prototypes import DifficultyOptions, measure_difficulty


class Scaling(DifficultyOptions):
    """How weights are made, and of which difficulty.

    Attributes:
        by: `class` or `sample`. strength: λ; null = 0.75 by class, 1 by sample.
        until: epoch at which λ has gone down to 0, linearly; null = it stays.
    """

    by: Literal["class", "sample"] = "class"
    strength: Annotated[Number, Field(ge=0)] | None = None
    until: Count | None = None

    def at(self, epoch: int) -> float:
        """λ at an epoch, from 0."""
        whole = {"class": 0.75, "sample": 1.0}[self.by] if self.strength is None else float(self.strength)
        return whole * (1.0 if self.until is None else max(0.0, 1 - epoch / self.until))


class DifficultyWeights:
    """Weights (n,) of the training clips.

    Raises:
        ParamsError, StoreError: see `measure_difficulty`.
    """

    def __init__(self, options: Scaling, roll: Roll) -> None:
        self.options, self.emotion = options, roll.emotion
        self.difficulty = measure_difficulty(options, roll, "training.curriculum.options.scaling")

    def weigh(self, epoch: int) -> Tensor:
        """(n,) float32 at an epoch; see `weigh_samples` and `weigh_by_class`."""
        weigh = weigh_by_class if self.options.by == "class" else weigh_samples
        return weigh(self.difficulty, self.emotion, self.options.at(epoch)).float()


def weigh_samples(difficulty: Tensor, emotion: Tensor, strength: float) -> Tensor:
    """(n,) 1 + λ d / mean d, scaled to the mean 1; what is unknown counts as the mean.

    >>> weigh_samples(torch.tensor([0.0, 2.0, float("nan")]), torch.tensor([0, 0, 1]), 1.0).tolist()
    [0.5, 1.5, 1.0]
    """
    mean = difficulty.nanmean()
    relative = torch.where(mean > 0, difficulty / mean, 1.0).nan_to_num(1.0)
    return (1 + strength * relative) / (1 + strength)


def weigh_by_class(difficulty: Tensor, emotion: Tensor, strength: float) -> Tensor:
    """(n,) the weight of each clip's class: N / (K n_k) + λ · mean difficulty of the class, scaled to the sum K.

    K counts the classes that occur; a clip without one weighs 1, a class without known difficulty has the mean of all.
    """
    weights = torch.ones_like(difficulty)
    labelled = emotion >= 0
    classes = emotion[labelled].unique()
    if not len(classes):
        return weights
    members = emotion[:, None] == classes  # (n, K)
    means = torch.where(members, difficulty[:, None], float("nan")).nanmean(0)
    means = torch.where(means.isfinite(), means, difficulty.nanmean())
    each = labelled.sum() / (len(classes) * members.sum(0)) + strength * means
    each = each * len(classes) / each.sum()
    return torch.where(labelled, (members.to(each) @ each).to(weights), weights)
