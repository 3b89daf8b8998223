"""Temperature scaling: one number per run, fitted on validation clips (Guo et al. 2017).

It divides the logits and so changes how sure a model says it is, never what it decides.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipeline.runs.folders import LINEAR
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset

from .clips import predict_test

#: Temperatures beyond are those of a model that is always right, or never, on too few clips.
LEAST, MOST = 0.05, 20.0


def find_temperature(run: TrainedModel, data: Dataset) -> float | None:
    """The temperature of a run by the validation clips of its fold; the held-out clips have no part in it.

    Returns:
        None where there is nothing to fit on: no classes, no labelled validation clip, or a model that learned from them.
    """
    part = run.config["part"]
    rows = (data.rotate(part) if part else data).rows("val")
    rows = rows[data.emotion[rows] >= 0]
    if not len(rows) or not run.model.spec.classes or learns_from_validation(run):
        return None
    return fit_temperature(predict_test(run, data, rows)["emotion"], data.emotion[rows].cpu())


def learns_from_validation(run: TrainedModel) -> bool:
    """Whether validation clips were learned from, so that how sure the model is of them tells nothing."""
    return run.config["variant"] == LINEAR or bool(run.config["params"]["training"]["refit"])


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """The temperature T of the least mean cross entropy of softmax(logits / T), between `LEAST` and `MOST`.

    In 1 / T the cross entropy is convex: its slope has one zero, and where it has none the nearer end is the answer.

    Args:
        logits: (N, C). truth: (N,) class indices.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    values = logits.double().numpy()
    values = values - values.max(1, keepdims=True)
    right = values[np.arange(len(values)), truth.numpy()]

    def slope(sharp: float) -> float:
        return float(((softmax(values * sharp, 1) * values).sum(1) - right).mean())

    if slope(1 / MOST) >= 0:
        return MOST
    return LEAST if slope(1 / LEAST) <= 0 else float(1 / brentq(slope, 1 / MOST, 1 / LEAST, xtol=1e-10))
