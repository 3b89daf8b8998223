"""Clip by clip."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.models.batch import Targets

from .base import Sampler


class Clips(Sampler):
    """Every clip once, in an order drawn anew each epoch."""

    def sample(self, targets: Targets, dialogue: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        """See `Sampler.sample`."""
        yield from torch.randperm(len(dialogue), generator=order).to(dialogue.device).split(self.size)
