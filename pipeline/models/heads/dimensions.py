"""Valence, arousal, dominance of a clip."""

from __future__ import annotations

from pipeline.models.batch import Fused, Outputs

from .base import Regressor


class Dimensions(Regressor):
    """(R, W) → (R, K)."""

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        return self.regress(fused.vector)
