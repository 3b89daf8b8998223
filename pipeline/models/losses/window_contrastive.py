"""Windows of one clip, among windows of others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets
from pipeline.params.base import Positive

from .embeddings import EmbeddingLoss, tell_apart
from .memory import NEVER, QueueOptions


class WindowContrastive(EmbeddingLoss):
    """InfoNCE in the batch: -log e^{s_ip/τ} / (e^{s_ip/τ} + Σ_n e^{s_in/τ}), the mean over the windows p of i's clip.

    n are the windows of other clips, in the batch and in the queue, never those of the same. `training.pairs` shows
    every clip as two windows; one that is there once takes no part.
    """

    class Options(QueueOptions):
        """temperature: τ."""

        temperature: Positive = 0.07

    options: Options

    @property
    def unlabelled(self) -> bool:
        """See `Loss.unlabelled`."""
        return True

    def find_truth(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """See `EmbeddingLoss.find_truth`: whose window it is, which is always known."""
        return targets.owner, torch.ones_like(targets.owner, dtype=torch.bool)

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        if len(targets.owner.unique()) < 2:
            raise ParamsError("there is one training clip, and no other to tell it from.")

    def push(self, vectors: Tensor, truth: Tensor) -> None:
        """See `QueueLoss.push`. Earlier windows of a clip may be far from the present ones: they are marked as neither."""
        super().push(vectors, -1 - truth)

    def compare(self, vectors: Tensor, others: Tensor, truth: Tensor, beside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmbeddingLoss.compare`."""
        near = (vectors @ others.T).float() / float(self.options.temperature)
        alike, unlike = tell_apart(truth, beside, valid)
        unlike = unlike & (-1 - truth[:, None] != beside)
        apart = near.masked_fill(~unlike, NEVER).logsumexp(1, keepdim=True)
        values = F.softplus(apart - near) * alike
        return values.sum(1) / alike.sum(1).clamp(min=1), alike.any(1) & unlike.any(1)
