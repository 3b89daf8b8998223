"""A clip and its instants, among the instants of other clips."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.params.base import Positive

from .base import mean_rows
from .instants import InstantQueueLoss, Instants, repel
from .memory import QueueOptions


class GlobalContrastive(InstantQueueLoss):
    """InfoNCE of a clip's vector g with each of its instants z_t, against the instants of other clips and of the queue."""

    class Options(QueueOptions):
        """temperature: τ."""

        temperature: Positive = 0.07

    options: Options

    def score(self, instants: Instants) -> Tensor:
        """See `InstantLoss.score`."""
        temperature = float(self.options.temperature)
        others, some = repel(instants.clips, instants.owner, self.list_others(instants), temperature)
        near = (instants.clips[:, None] * instants.vectors).sum(-1) / temperature  # (R, T)
        values = F.softplus(others[:, None] - near)
        return mean_rows(values.flatten(), (instants.weight * some[:, None]).flatten())
