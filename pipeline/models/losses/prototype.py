"""Classes as the mean of their clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.params.base import Positive

from .embeddings import EmbeddingLoss
from .memory import NEVER, QueueOptions


class Prototype(EmbeddingLoss):
    """Mean of -log softmax(cos(v, c_k) / τ)_y, c_k the mean of the other clips of class k (Snell et al. 2017).

    A clip is never part of the mean it is held against; one alone of its class takes no part. Prototypes that are learned
    are those of the head `prototypes`.
    """

    class Options(QueueOptions):
        """temperature: τ."""

        temperature: Positive = 0.1

    options: Options

    def compare(self, vectors: Tensor, others: Tensor, truth: Tensor, beside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmbeddingLoss.compare`."""
        of = beside[:, None] == torch.arange(self.size, device=beside.device)  # (N, C)
        members = (valid[:, None] & of.T).to(vectors.dtype)  # (R, C, N)
        means = F.normalize(members @ others, dim=-1)  # (R, C, W)
        there = members.any(-1)
        near = (means @ vectors[..., None]).squeeze(-1) / float(self.options.temperature)
        chance = near.masked_fill(~there, NEVER).log_softmax(-1)
        # A clip without a class is counted for none, wherever its -1 points.
        own = truth.clamp(min=0)[:, None]
        return -chance.gather(1, own).squeeze(1) * there.gather(1, own).squeeze(1), there.gather(1, own).squeeze(1)
