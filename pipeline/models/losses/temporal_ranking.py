"""Instants as far from one another as their labels are."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets
from pipeline.params.base import Count, Group, Number, Positive

from .base import mean_rows
from .instants import InstantLoss, Instants


class TemporalRanking(InstantLoss):
    """Mean of max(0, ‖z_a - z_m‖ - ‖z_a - z_f‖ + margin) over triplets of one clip.

    m and f are instants at most `reach` from a, and f's labels are farther from a's than m's by more than `gap`, in the
    Euclidean distance of valence and arousal in [-1, 1]. A batch in which no labels differ has no triplet.
    """

    class Options(Group):
        """margin: of the distances, which are at most 2. reach: instants. gap: of the labels' distances."""

        margin: Positive = 0.5
        reach: Count = 8
        gap: Annotated[Number, Field(ge=0)] = 0.05

    options: Options

    @property
    def unlabelled(self) -> bool:
        """See `Loss.unlabelled`."""
        return False

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        if targets.frames is None or not bool(torch.isfinite(targets.frames).all(-1).any()):
            raise ParamsError("no training clip has the labels over time that instants are ordered by; leave the term out.")

    def score(self, instants: Instants) -> Tensor:
        """See `InstantLoss.score`."""
        weight = instants.weight * instants.known  # (R, T)
        length, reach = weight.shape[1], self.options.reach
        steps = torch.arange(-reach, reach + 1, device=weight.device)
        at = torch.arange(length, device=weight.device)[:, None] + steps  # (T, S)
        inside, at = (at >= 0) & (at < length), at.clamp(0, length - 1)
        there = inside & (weight[:, at] > 0) & (steps != 0)  # (R, T, S)
        far = _distance(instants.vectors[:, at], instants.vectors[:, :, None])
        apart = (instants.truth[:, at] - instants.truth[:, :, None]).square().sum(-1).sqrt()
        ordered = apart[..., None, :] - apart[..., :, None] > float(self.options.gap)  # (R, T, S middle, S far)
        counted = weight[..., None, None] * (ordered & there[..., :, None] & there[..., None, :])
        over = (far[..., :, None] - far[..., None, :] + float(self.options.margin)).clamp(min=0)
        return mean_rows(over.flatten(), counted.flatten())


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean; the slope of a root at zero is infinite, so that there it is cut off."""
    square = (one - other).square().sum(-1)
    apart = square > 1e-12
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
