"""What is minimised, and what selects the checkpoint."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipeline import metrics
from pipeline.models import losses
from pipeline.models.model import Output
from pipeline.params import Loss

from .data.labels import Targets


def total(output: Output, targets: Targets, loss: Loss, weights: Tensor | None) -> Tensor:
    """Sum of the losses of the heads there are; dimensions weighted by `loss.dimensions`."""
    parts = []
    if output.logits is not None:
        parts.append(losses.emotion(output.logits, targets.emotion, loss, weights))
    if output.dimensions is not None:
        parts.append(float(loss.dimensions) * losses.dimensional(output.dimensions, targets.dimensions))
    if output.frames is not None and targets.frames is not None:
        size = output.frames.shape[-1]
        frames = losses.dimensional(output.frames.reshape(-1, size), targets.frames.reshape(-1, size))
        parts.append(float(loss.dimensions) * frames)
    return sum(parts[1:], parts[0])


def score(select: str, output: Output, targets: Targets, loss: float) -> float:
    """The validation value to maximise.

    `ccc` is the mean over dimensions, pooled over frames when the model predicts them, else over clips;
    `loss` is negated. NaN (nothing to compare with) counts as the worst.
    """
    if select == "loss":
        value = -loss
    elif select == "ccc":
        value = _concordance(output, targets)
    else:
        predicted = output.logits.argmax(1).cpu().numpy()
        matrix = metrics.confusion(targets.emotion.cpu().numpy(), predicted, output.logits.shape[1])
        value = getattr(metrics, select)(matrix)
    return value if np.isfinite(value) else float("-inf")


def _concordance(output: Output, targets: Targets) -> float:
    pred, truth = output.dimensions, targets.dimensions
    if output.frames is not None and targets.frames is not None:
        pred, truth = output.frames.flatten(0, 1), targets.frames.flatten(0, 1)
    pred, truth = pred.cpu().numpy(), truth.cpu().numpy()
    values = [metrics.ccc(truth[:, k], pred[:, k]) for k in range(truth.shape[1])]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
