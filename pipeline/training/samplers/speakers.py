"""Speaker by speaker."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets

from .base import Sampler


class Speakers(Sampler):
    """Every clip once, each batch of one speaker; clips whose speaker is unknown are in batches of their own.

    Raises:
        ParamsError: no training clip has a speaker.
    """

    def sample(self, targets: Targets, dialogue: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        """See `Sampler.sample`."""
        speaker = targets.domain.get("speaker", torch.full_like(targets.emotion, -1)).cpu()
        if not bool((speaker >= 0).any()):
            raise ParamsError("training.sampler: speakers needs clips whose speaker is known; this corpus names none; use clips.")
        batches = []
        for one in speaker.unique():
            members = torch.nonzero(speaker == one).squeeze(1)
            batches += members[torch.randperm(len(members), generator=order)].split(self.size)
        for at in torch.randperm(len(batches), generator=order).tolist():
            yield batches[at].to(dialogue.device)
