"""Neighbours in time, among the instants of other clips."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.params.base import Count, Flag, Number, Positive

from .base import mean_rows
from .instants import InstantQueueLoss, Instants, pair_weight, repel, repel_within, step_apart
from .memory import QueueOptions


class LocalContrastive(InstantQueueLoss):
    """InfoNCE (van den Oord et al. 2018): -log e^{s(z_t, z_t+1)/τ} / (e^{s(z_t, z_t+1)/τ} + Σ_n e^{s(z_t, n)/τ}).

    n are the instants of other clips of the batch, and of the queue; s is the cosine. The mean over all neighbours t, t+1 is
    weighted by exp(-β ‖d_t - d_t+1‖), d valence and arousal in [-1, 1], wherever both are known, and by 1 where they are not.
    """

    class Options(QueueOptions):
        """temperature: τ. beta: β; 0 = neighbours count alike, whatever their labels. apart: instants of the same clip so many
        steps away or more are among the n (Sermanet et al. 2018); null = none is. others: those of other clips are.
        """

        temperature: Positive = 0.07
        beta: Annotated[Number, Field(ge=0)] = 10.0
        apart: Count | None = None
        others: Flag = True

        @model_validator(mode="after")
        def _repels(self) -> LocalContrastive.Options:
            if self.apart is None and not self.others:
                raise ValueError("nothing is left that repels: set apart, or leave others true")
            return self

    options: Options

    def score(self, instants: Instants) -> Tensor:
        """See `InstantLoss.score`."""
        anchors, following = instants.vectors[:, :-1], instants.vectors[:, 1:]
        weight = pair_weight(instants) * (-float(self.options.beta) * step_apart(instants)).exp()
        temperature = float(self.options.temperature)
        parts = []
        if self.options.others:
            near, some = repel(anchors, instants.owner, self.list_others(instants), temperature)
            parts.append((near, some[:, None].expand(near.shape)))
        if self.options.apart is not None:
            parts.append(repel_within(anchors, instants, self.options.apart, temperature))
        apart = torch.stack([near for near, _ in parts]).logsumexp(0)
        some = torch.stack([there for _, there in parts]).any(0)
        values = F.softplus(apart - (anchors * following).sum(-1) / temperature)
        return mean_rows(values.flatten(), (weight * some).flatten())
