"""Metrics, with one definition each.

Classification takes class indices; rows whose truth is negative take no part. Regression takes
floats; rows where truth or prediction is NaN take no part. A metric of nothing is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def confusion(truth: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """(K, K) counts, rows = truth."""
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    known = truth >= 0
    return np.bincount(truth[known] * classes + predicted[known], minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> float:
    """Trace over sum: weighted accuracy (WA), and micro-F1, as every row has one class."""
    return _ratio(np.trace(matrix), matrix.sum())


def recall(matrix: np.ndarray) -> np.ndarray:
    """(K,) recall per class; NaN for a class without truth."""
    support = matrix.sum(1).astype(float)
    return np.divide(np.diag(matrix), support, out=np.full(len(matrix), np.nan), where=support > 0)


def uar(matrix: np.ndarray, *, strict: bool = False) -> float:
    """Unweighted average recall (balanced accuracy) over classes that occur.

    Args:
        strict: a class that was predicted but does not occur counts as recall 0.
    """
    values = recall(matrix)
    if strict:
        values = np.nan_to_num(values[matrix.sum(0) + matrix.sum(1) > 0])
    return _mean(values)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """(K,) `precision`, `recall`, `f1` (0 where undefined) and `support`."""
    hit, support, claimed = np.diag(matrix).astype(float), matrix.sum(1), matrix.sum(0)
    precision = np.divide(hit, claimed, out=np.zeros_like(hit), where=claimed > 0)
    recalled = np.divide(hit, support, out=np.zeros_like(hit), where=support > 0)
    both = precision + recalled
    f1 = np.divide(2 * precision * recalled, both, out=np.zeros_like(hit), where=both > 0)
    return {"precision": precision, "recall": recalled, "f1": f1, "support": support}


def macro_f1(matrix: np.ndarray, *, absent: str = "skip") -> float:
    """Mean F1 over classes.

    Args:
        absent: a class absent from truth and prediction is left out (`skip`) or counts 0 (`zero`).
    """
    if absent not in ("skip", "zero"):
        raise ValueError(f"absent is {absent!r}; give 'skip' or 'zero'")
    f1 = per_class(matrix)["f1"]
    return _mean(f1 if absent == "zero" else f1[matrix.sum(0) + matrix.sum(1) > 0])


def weighted_f1(matrix: np.ndarray) -> float:
    """Mean F1 over classes, weighted by how often they occur."""
    parts = per_class(matrix)
    return _ratio(float((parts["f1"] * parts["support"]).sum()), matrix.sum())


def micro_f1(matrix: np.ndarray) -> float:
    """F1 of the pooled decisions; equals the accuracy for one class per row."""
    return accuracy(matrix)


def classification(truth: ArrayLike, predicted: ArrayLike, classes: int) -> dict[str, float]:
    """All scalar classification metrics of one prediction set."""
    matrix = confusion(truth, predicted, classes)
    return {
        "accuracy": accuracy(matrix),
        "uar": uar(matrix),
        "uar_strict": uar(matrix, strict=True),
        "macro_f1": macro_f1(matrix),
        "macro_f1_zero": macro_f1(matrix, absent="zero"),
        "weighted_f1": weighted_f1(matrix),
        "micro_f1": micro_f1(matrix),
    }


def ccc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Concordance correlation coefficient (Lin 1989), population moments.

    Two equal constants agree perfectly in value but carry no association: 0, as PCC.
    """
    y, p = _known(truth, predicted)
    if not len(y):
        return float("nan")
    scale = y.var() + p.var() + (y.mean() - p.mean()) ** 2
    return float(2 * ((y - y.mean()) * (p - p.mean())).mean() / scale) if scale > 0 else 0.0


def pcc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Pearson correlation; 0 when either side is constant."""
    y, p = _known(truth, predicted)
    if not len(y):
        return float("nan")
    scale = y.std() * p.std()
    # A constant column leaves rounding of the order of 1e-17 in its deviation.
    if min(np.ptp(y), np.ptp(p)) == 0 or scale == 0:
        return 0.0
    return float(((y - y.mean()) * (p - p.mean())).mean() / scale)


def rmse(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Root mean square error."""
    y, p = _known(truth, predicted)
    return float(np.sqrt(np.mean((y - p) ** 2))) if len(y) else float("nan")


def sagr(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Sign agreement, sign(0) = 0."""
    y, p = _known(truth, predicted)
    return float(np.mean(np.sign(y) == np.sign(p))) if len(y) else float("nan")


def regression(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """All metrics of one dimension."""
    return {
        "ccc": ccc(truth, predicted),
        "pcc": pcc(truth, predicted),
        "rmse": rmse(truth, predicted),
        "sagr": sagr(truth, predicted),
    }


def calibration(truth: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error of the top class (Guo et al. 2017), and its bins.

    Args:
        truth: (N,). probabilities: (N, K).

    Returns:
        The error, and per bin that holds a row: `confidence`, `accuracy` (means) and `count`.
    """
    truth, probabilities = np.asarray(truth, np.int64), np.asarray(probabilities, float)
    known = truth >= 0
    truth, probabilities = truth[known], probabilities[known]
    if not len(truth):
        return float("nan"), []
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [
        {
            "confidence": float(confidence[where == b].mean()),
            "accuracy": float(right[where == b].mean()),
            "count": int((where == b).sum()),
        }
        for b in np.unique(where)
    ]
    return sum(r["count"] * abs(r["confidence"] - r["accuracy"]) for r in rows) / len(truth), rows


def mean_per_clip(groups: Sequence[str], truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over clips of the CCC inside each clip; clips of fewer than two known rows or of constant
    truth take no part."""
    names, truth, predicted = np.asarray(groups), np.asarray(truth, float), np.asarray(predicted, float)
    values = []
    for name in np.unique(names):
        y, p = _known(truth[names == name], predicted[names == name])
        if len(y) > 1 and np.ptp(y) > 0:
            values.append(ccc(y, p))
    return _mean(np.array(values))


def _known(truth: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(truth, float).ravel(), np.asarray(predicted, float).ravel()
    known = np.isfinite(y) & np.isfinite(p)
    return y[known], p[known]


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
