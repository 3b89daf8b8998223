"""As many clips of every class."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets

from .balance import draw_evenly
from .base import Sampler


class ClassBalanced(Sampler):
    """K classes with max(2, ⌈size / K⌉) clips each in a batch; rare classes come again and again.

    An epoch shows each clip of the largest class once, K times as many in all. Clips without a class are a group like a
    class.

    Raises:
        ParamsError: no training clip has a class.
    """

    def sample(self, targets: Targets, dialogue: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        """See `Sampler.sample`."""
        emotion = targets.emotion.cpu()
        if not bool((emotion >= 0).any()):
            raise ParamsError("training.sampler: class_balanced needs clips with an emotion; use clips, or see task.emotion.")
        share = max(2, -(-self.size // len(emotion.unique())))
        for batch in draw_evenly(emotion, share, order):
            yield batch.to(dialogue.device)
