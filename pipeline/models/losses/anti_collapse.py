"""Vectors that do not all become one."""

from __future__ import annotations

from torch import Tensor

from pipeline.params.base import Group, Share

from .base import EPSILON
from .instants import InstantLoss, Instants


class AntiCollapse(InstantLoss):
    """Mean over the P numbers of a vector of max(0, 1 - √P σ / share), σ its deviation over all instants of the batch.

    Vectors of length 1 in all directions have σ = 1/√P in each number (Bardes et al. 2022, on the sphere). With fewer than
    two instants it is 0.
    """

    class Options(Group):
        """share: of the deviation that vectors in all directions have, from which on nothing is asked."""

        share: Share = 1.0

    options: Options

    def score(self, instants: Instants) -> Tensor:
        """See `InstantLoss.score`."""
        vectors, weight = instants.vectors.flatten(0, 1), instants.weight.flatten()[:, None]
        total = weight.sum().clamp(min=EPSILON)
        mean = (vectors * weight).sum(0) / total
        variance = ((vectors - mean).square() * weight).sum(0) / total
        deviation = (variance + EPSILON).sqrt() * vectors.shape[1] ** 0.5
        lacking = (1 - deviation / max(float(self.options.share), EPSILON)).clamp(min=0)
        return lacking.mean() * ((weight > 0).sum() > 1)
