"""As many clips of every corpus."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets

from .balance import draw_evenly
from .base import Sampler


class Corpora(Sampler):
    """M corpora with ⌈size / M⌉ clips each in a batch, until the largest has been through once; the others begin anew.

    Raises:
        ParamsError: it is not known which corpus clips are of.
    """

    def sample(self, targets: Targets, dialogue: Tensor, order: torch.Generator) -> Iterator[Tensor]:
        """See `Sampler.sample`."""
        corpus = targets.domain.get("corpus", torch.full_like(targets.emotion, -1)).cpu()
        if not bool((corpus >= 0).any()):
            raise ParamsError("training.sampler: corpora needs clips whose corpus is known; use clips.")
        for batch in draw_evenly(corpus, -(-self.size // len(corpus.unique())), order):
            yield batch.to(dialogue.device)
