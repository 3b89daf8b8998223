"""Logit adjustment after training: rare classes get back what their rarity took (Menon et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline import metrics
from pipeline.models.batch import Targets
from pipeline.models.model import Model

from .selection import CLASSES


def log_prior(truth: Tensor, classes: int) -> Tensor:
    """(C,) log share of each class among the known labels; that of one clip for a class nobody showed."""
    counts = torch.bincount(truth[truth >= 0], minlength=classes).float().clamp(min=1)
    return (counts / counts.sum()).log()


def choose_shift(
    model: Model, prior: Tensor, logits: Tensor, targets: Targets, candidates: Sequence[float], select: str
) -> float:
    """Set `model.shift` to τ · log prior with the τ that is best on validation; of equals the smallest.

    Args:
        logits: (R, C) of the validation clips, without a shift.
        select: metric of the classes.

    Returns:
        τ.
    """
    truth = targets.emotion.cpu().numpy()

    def judge(tau: float) -> float:
        predicted = (logits - tau * prior).argmax(1).cpu().numpy()
        return float(CLASSES[select](metrics.confusion(truth, predicted, logits.shape[1])))

    best = max(sorted(candidates, key=abs), key=judge)
    model.shift.copy_(best * prior)
    return best
