"""Rows normalised within groups of clips, such as those of a speaker."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.pooled import Axis


def standardise_groups(values: Tensor, group: Tensor, plain: int, groups: int, axis: Axis) -> Tensor:
    """(ΣT, …) float32 rows with zero mean and unit deviation over the first `plain` rows of each group.

    Args:
        values: (ΣT, D), or (ΣT, N, D) where N is `axis`: layers are each normalised, places of a picture together.
        group: (ΣT,) number of each row's group, below `groups`.
    """
    first, own = values[:plain].double(), group[:plain]
    places = axis == "space"
    count = torch.bincount(own, minlength=groups).clamp(min=1).reshape(-1, *[1] * (values.dim() - 1))
    zero = first.new_zeros(groups, *values.shape[1:])
    mean = zero.index_add(0, own, first) / count
    mean = mean.mean(1, keepdim=True) if places else mean
    spread = zero.index_add(0, own, (first - mean[own]) ** 2) / count
    deviation = (spread.mean(1, keepdim=True) if places else spread).sqrt()
    # One clip, or one token, of a group has no spread to divide by.
    deviation = torch.where(deviation < 1e-6, 1.0, deviation)
    return ((values.double() - mean[group]) / deviation[group]).float()
