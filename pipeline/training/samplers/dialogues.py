"""Dialogue by dialogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.models.batch import Targets

from .base import Sampler


class Dialogues(Sampler):
    """Every clip once, whole dialogues together: none is split, a batch ends with the one that fills it.

    A clip of no dialogue is one by itself.
    """

    whole: ClassVar[bool] = True

    def sample(self, targets: Targets, dialogue: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        """See `Sampler.sample`."""
        number = dialogue.cpu().clone()
        alone = number < 0
        number[alone] = number.max().clamp(min=0) + 1 + torch.arange(int(alone.sum()))
        _, groups, counts = number.unique(return_inverse=True, return_counts=True)
        members = groups.argsort(stable=True).split(counts.tolist())
        batch: list[Tensor] = []
        for at in torch.randperm(len(members), generator=order).tolist():
            batch.append(members[at])
            if sum(map(len, batch)) >= self.size:
                yield torch.cat(batch).to(dialogue.device)
                batch = []
        if batch:
            yield torch.cat(batch).to(dialogue.device)
