"""Little movement from one instant to the next."""

from __future__ import annotations

from torch import Tensor

from pipeline.params.base import Group, Share

from .base import mean_rows
from .instants import InstantLoss, Instants, pair_weight, step_apart


class Smoothness(InstantLoss):
    """Mean over neighbours in time of (1 - relief · min(1, ‖d_t+1 - d_t‖)) ‖z_t+1 - z_t‖², d valence and arousal in [-1, 1].

    Where the labels move, the vectors may; where they are unknown, they count as unmoved.
    """

    class Options(Group):
        """relief: how much of the penalty a full step of the labels takes away; 0 = labels are not looked at."""

        relief: Share = 0.9

    options: Options

    def score(self, instants: Instants) -> Tensor:
        """See `InstantLoss.score`."""
        moved = (instants.vectors[:, 1:] - instants.vectors[:, :-1]).square().sum(-1)
        factor = 1 - float(self.options.relief) * step_apart(instants).clamp(max=1)
        return mean_rows((factor * moved).flatten(), pair_weight(instants).flatten())
