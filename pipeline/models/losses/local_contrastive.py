"""Neighbours in time, among the instants of other clips."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.params.base import Number, Positive

from .base import mean_rows
from .instants import InstantQueueLoss, Instants, pair_weight, repel, step_apart
from .memory import QueueOptions


class LocalContrastive(InstantQueueLoss):
    """InfoNCE (van den Oord et al. 2018): -log e^{s(z_t, z_t+1)/τ} / (e^{s(z_t, z_t+1)/τ} + Σ_n e^{s(z_t, n)/τ}).

    n are the instants of other clips of the batch, and of the queue; s is the cosine. The mean over all neighbours t, t+1 is
    weighted by exp(-β ‖d_t - d_t+1‖), d valence and arousal in [-1, 1], wherever both are known, and by 1 where they are not.
    """

    class Options(QueueOptions):
        """temperature: τ. beta: β; 0 = neighbours count alike, whatever their labels."""

        temperature: Positive = 0.07
        beta: Annotated[Number, Field(ge=0)] = 10.0

    options: Options

    def score(self, instants: Instants) -> Tensor:
        """See `InstantLoss.score`."""
        anchors, following = instants.vectors[:, :-1], instants.vectors[:, 1:]
        weight = pair_weight(instants) * (-float(self.options.beta) * step_apart(instants)).exp()
        owner = instants.owner[:, None].expand(weight.shape)
        temperature = float(self.options.temperature)
        others, some = repel(anchors.flatten(0, 1), owner.flatten(), self.list_others(instants), temperature)
        near = (anchors * following).sum(-1).flatten() / temperature
        return mean_rows(F.softplus(others - near), weight.flatten() * some)
