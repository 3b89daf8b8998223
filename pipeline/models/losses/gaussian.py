"""How sure dimensions are."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, Targets, name_variance

from .base import DimensionLoss, mean_rows

#: Logarithms of variance are read within these, so that no prediction, however sure, gives an infinite loss.
LOW, HIGH = -10.0, 4.0


class Gaussian(DimensionLoss):
    """½ (log σ² + (truth - prediction)² / σ²), the negative log-likelihood without its constant (Nix & Weigend 1994).

    Mean over the known values of each dimension, then over the dimensions that have truth. A head that does not say how sure
    it is has the variance 1.
    """

    wants = "uncertainty"

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        values = outputs[self.on]
        said = outputs.get(name_variance(self.on))
        log_variance = torch.zeros_like(values) if said is None else said.clamp(LOW, HIGH)
        return self.average(values, targets, log_variance)

    def score(self, pred: Tensor, truth: Tensor, weight: Tensor, *beside: Tensor) -> Tensor:
        """See `DimensionLoss.score`."""
        (log_variance,) = beside
        return mean_rows(0.5 * (log_variance + (truth - pred).square() * (-log_variance).exp()), weight)
