"""Supervised contrastive loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.models.batch import Targets
from pipeline.params.base import Positive

from .embeddings import EmbeddingLoss, tell_apart
from .memory import NEVER, QueueOptions


class SupervisedContrastive(EmbeddingLoss):
    """Mean over clips i of -Σ_p w_ip log(e^{s_ip/τ} / Σ_a e^{s_ia/τ}) / Σ_p w_ip, s the cosine, a all others.

    By emotion w_ip is 1 for the others of the same class and 0 else (Khosla et al. 2020); by dimensions it is
    exp(-β ‖d_i - d_p‖) for all others. A clip alone of its class takes no part.
    """

    class Options(QueueOptions):
        """labels: by which clips are alike. temperature: τ. beta: β, for dimensions in [-1, 1]."""

        labels: Literal["emotion", "dimensions"] = "emotion"
        temperature: Positive = 0.07
        beta: Positive = 10.0

    options: Options

    def find_truth(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """See `EmbeddingLoss.find_truth`."""
        if self.options.labels == "emotion":
            return super().find_truth(targets)
        known = torch.isfinite(targets.dimensions)
        some = known.all(1) if known.shape[1] else known.any(1)
        return targets.dimensions.nan_to_num(0.0), some

    def compare(self, vectors: Tensor, others: Tensor, truth: Tensor, beside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `EmbeddingLoss.compare`."""
        near = vectors @ others.T / float(self.options.temperature)
        chance = near - near.masked_fill(~valid, NEVER).logsumexp(1, keepdim=True)
        if self.options.labels == "emotion":
            alike, _ = tell_apart(truth, beside, valid)
            share = alike / alike.sum(1, keepdim=True).clamp(min=1)
        else:
            apart = (truth[:, None] - beside).square().sum(-1).sqrt()
            share = (-float(self.options.beta) * apart).masked_fill(~valid, NEVER).softmax(1) * valid
        return -(share.to(near.dtype) * chance).sum(1), (share > 0).any(1)
