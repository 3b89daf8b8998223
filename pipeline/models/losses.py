"""Losses on logits and on bounded dimensions; rows without truth take no part."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.params import Loss

EPSILON = 1e-8


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean of -log p_y over rows with target >= 0; weighted mean when class weights are given.

    Args:
        logits: (B, C). target: (B,) int64, -1 unknown. weights: (C,) or None.
    """
    known = target >= 0
    if not known.any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits[known], target[known], weights, label_smoothing=smoothing)


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: Tensor | None = None) -> Tensor:
    """mean α_y (1 - p_y)^γ (-log p_y), p clamped to [ε, 1-ε] (Lin et al. 2017).

    Args:
        alpha: (C,) or None; the mean is over rows, not over weights.
    """
    known = target >= 0
    if not known.any():
        return logits.sum() * 0.0
    logits, target = logits[known], target[known]
    p = logits.log_softmax(1).gather(1, target[:, None]).squeeze(1).exp().clamp(EPSILON, 1 - EPSILON)
    value = (1 - p) ** gamma * -p.log()
    return (value if alpha is None else alpha[target] * value).mean()


def concordance(pred: Tensor, truth: Tensor) -> Tensor:
    """Concordance correlation (Lin 1989), population moments: (N,), (N,) → scalar."""
    mp, mt = pred.mean(), truth.mean()
    covariance = ((pred - mp) * (truth - mt)).mean()
    return 2 * covariance / (pred.var(correction=0) + truth.var(correction=0) + (mp - mt) ** 2 + EPSILON)


def dimensional(pred: Tensor, truth: Tensor) -> Tensor:
    """0.5 MSE + 0.5 (1 - CCC), mean over dimensions that have truth.

    Args:
        pred: (N, K). truth: (N, K), NaN unknown. With fewer than two known rows the CCC part is left out.
    """
    parts = []
    for k in range(pred.shape[1]):
        known = torch.isfinite(truth[:, k])
        count = int(known.sum())
        if not count:
            continue
        p, t = pred[known, k], truth[known, k]
        square = F.mse_loss(p, t)
        parts.append(0.5 * square + 0.5 * (1 - concordance(p, t)) if count > 1 else square)
    return torch.stack(parts).mean() if parts else pred.sum() * 0.0


def class_weights(target: Tensor, classes: int) -> Tensor:
    """(C,) N / (K n_k), K counting classes that occur; a class that does not occur weighs 1."""
    counts = torch.bincount(target[target >= 0], minlength=classes).float()
    occurring = (counts > 0).sum().clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (occurring * counts.clamp(min=1)), 1.0)


def emotion(logits: Tensor, target: Tensor, loss: Loss, weights: Tensor | None) -> Tensor:
    """The classification loss `loss.emotion` names."""
    if loss.emotion == "focal":
        return focal(logits, target, float(loss.gamma), weights)
    return cross_entropy(logits, target, weights, float(loss.label_smoothing))
