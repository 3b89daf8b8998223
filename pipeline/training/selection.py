"""What selects the checkpoint: one value on validation, to be maximised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from pipeline import metrics
from pipeline.errors import ParamsError
from pipeline.models.batch import Outputs, Targets
from pipeline.models.spec import ModelSpec

#: Metrics of a confusion matrix.
CLASSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uar": metrics.uar,
    "macro_f1": metrics.macro_f1,
    "weighted_f1": metrics.weighted_f1,
    "accuracy": metrics.accuracy,
}


def name_measure(select: str, spec: ModelSpec) -> str:
    """What is recorded of validation after each epoch: the metric that selects, else the task's own."""
    return select if select != "last" else "uar" if spec.classes else "ccc"


def check_selection(select: str, spec: ModelSpec) -> None:
    """Raise unless the model predicts what `select` needs.

    Raises:
        ParamsError: it does not.
    """
    if select == "ccc" and not spec.dimensions:
        raise ParamsError("training.select is 'ccc', but task.dimensions is empty; select uar, macro_f1 or loss.")
    if select in CLASSES and not spec.classes:
        raise ParamsError(f"training.select is {select!r}, but no emotion is predicted; select ccc or loss.")


def score(select: str, outputs: Outputs, targets: Targets, loss: float) -> float:
    """The validation value.

    `ccc` is the mean over dimensions, pooled over frames when the model predicts them, else over clips;
    `loss` is negated. NaN (nothing to compare with) counts as the worst.
    """
    if select == "loss":
        value = -loss
    elif select == "ccc":
        value = _concordance(outputs, targets)
    else:
        logits = outputs["emotion"]
        predicted = logits.argmax(1).cpu().numpy()
        value = float(CLASSES[select](metrics.confusion(targets.emotion.cpu().numpy(), predicted, logits.shape[1])))
    return value if np.isfinite(value) else float("-inf")


def _concordance(outputs: Outputs, targets: Targets) -> float:
    pairs: tuple[Tensor, Tensor] = outputs["dimensions"], targets.dimensions
    if "frames" in outputs and targets.frames is not None:
        pairs = outputs["frames"].flatten(0, 1), targets.frames.flatten(0, 1)
    pred, truth = (side.cpu().numpy() for side in pairs)
    values = [metrics.ccc(truth[:, k], pred[:, k]) for k in range(truth.shape[1])]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
