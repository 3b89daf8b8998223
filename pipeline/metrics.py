"""Metrics, with one definition each.

Classification takes class indices; rows whose truth is negative take no part. Regression takes
floats; rows where truth or prediction is NaN take no part. A metric of nothing is NaN. What is made of
a confusion matrix (K, K) takes a stack of them (…, K, K) as well, and then gives an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: A float of one matrix, an array (…) of a stack of them.
Figure = Any

#: Of regression: those that a truth which never varies does not define.
CORRELATIONS = ("ccc", "pcc", "icc")

#: Bins of equal width in which confidence is compared with the share that is right.
BINS = 10


def confusion(truth: ArrayLike, predicted: ArrayLike, classes: int) -> np.ndarray:
    """(K, K) counts, rows = truth."""
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    known = truth >= 0
    return np.bincount(truth[known] * classes + predicted[known], minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> Figure:
    """Trace over sum: weighted accuracy (WA), and micro-F1, as every row has one class."""
    return ratio(_diagonal(matrix).sum(-1), matrix.sum((-2, -1)))


def recall(matrix: np.ndarray) -> np.ndarray:
    """(…, K) recall per class; NaN for a class without truth."""
    return np.asarray(ratio(_diagonal(matrix), matrix.sum(-1)))


def uar(matrix: np.ndarray, *, strict: bool = False) -> Figure:
    """Unweighted average recall (balanced accuracy) over classes that occur.

    Args:
        strict: a class that was predicted but does not occur counts as recall 0.
    """
    values = recall(matrix)
    return _mean(np.nan_to_num(values), _seen(matrix)) if strict else _mean(values, np.isfinite(values))


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """(…, K) `precision`, `recall`, `f1` (0 where undefined) and `support`."""
    hit, support, claimed = _diagonal(matrix), matrix.sum(-1), matrix.sum(-2)
    precision, recalled = np.nan_to_num(ratio(hit, claimed)), np.nan_to_num(ratio(hit, support))
    f1 = np.nan_to_num(ratio(2 * precision * recalled, precision + recalled))
    return {"precision": precision, "recall": recalled, "f1": f1, "support": support}


def macro_f1(matrix: np.ndarray, *, absent: str = "skip") -> Figure:
    """Mean F1 over classes.

    Args:
        absent: a class absent from truth and prediction is left out (`skip`) or counts 0 (`zero`).
    """
    if absent not in ("skip", "zero"):
        raise ValueError(f"absent is {absent!r}; give 'skip' or 'zero'")
    f1 = per_class(matrix)["f1"]
    return _mean(f1, np.ones(f1.shape, bool) if absent == "zero" else _seen(matrix))


def weighted_f1(matrix: np.ndarray) -> Figure:
    """Mean F1 over classes, weighted by how often they occur."""
    parts = per_class(matrix)
    return ratio((parts["f1"] * parts["support"]).sum(-1), matrix.sum((-2, -1)))


def micro_f1(matrix: np.ndarray) -> Figure:
    """F1 of the pooled decisions; equals the accuracy for one class per row."""
    return accuracy(matrix)


def of_confusion(matrix: np.ndarray) -> dict[str, Figure]:
    """All scalar classification metrics of one matrix (K, K), or of each of a stack (…, K, K)."""
    # What they share is counted once: intervals ask for thousands of matrices.
    parts, seen, recalled, right = per_class(matrix), _seen(matrix), recall(matrix), accuracy(matrix)
    f1 = parts["f1"]
    return {
        "accuracy": right,
        "uar": _mean(recalled, np.isfinite(recalled)),
        "uar_strict": _mean(np.nan_to_num(recalled), seen),
        "macro_f1": _mean(f1, seen),
        "macro_f1_zero": _mean(f1, np.ones(f1.shape, bool)),
        "weighted_f1": ratio((f1 * parts["support"]).sum(-1), matrix.sum((-2, -1))),
        "micro_f1": right,
    }


def classification(truth: ArrayLike, predicted: ArrayLike, classes: int) -> dict[str, float]:
    """All scalar classification metrics of one prediction set."""
    return of_confusion(confusion(truth, predicted, classes))


def moments(truth: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """(N, 9) terms whose sums over rows hold every metric of regression; zeros where either side is unknown.

    Both sides are taken about their mean, so that the variance of a sum of rows keeps its digits.
    """
    y, p = np.asarray(truth, float).ravel(), np.asarray(predicted, float).ravel()
    rows = np.flatnonzero(np.isfinite(y) & np.isfinite(p))
    found = np.zeros((len(y), 9))
    if len(rows):
        y, p = y[rows], p[rows]
        a, b, gap, agree = y - y.mean(), p - p.mean(), y - p, np.sign(y) == np.sign(p)
        found[rows] = np.stack([np.ones(len(y)), a, b, a * a, b * b, a * b, gap, gap * gap, agree], 1)
    return found


def of_moments(sums: np.ndarray) -> dict[str, Figure]:
    """`ccc`, `pcc`, `icc`, `rmse`, `mse` and `sagr` from sums of `moments` (9,), or of each of a stack (…, 9).

    CCC is the concordance correlation coefficient of Lin (1989) with population moments, ICC the intraclass correlation
    ICC(3,1) of Shrout and Fleiss (1979) with truth and prediction as the two raters, 2 cov / (var + var). Two equal constants
    agree in value but carry no association: 0, as PCC; `is_constant` tells them. SAGR is the agreement of signs, sign(0) = 0.
    """
    a, b, aa, bb, ab, gap, square, agree = np.moveaxis(np.asarray(ratio(sums[..., 1:], sums[..., :1] + 0 * sums[..., 1:])), -1, 0)
    y, p = _variance(a, aa), _variance(b, bb)
    shared, known = np.where((y > 0) & (p > 0), ab - a * b, 0), np.isfinite(aa)
    return {
        "ccc": np.where(known, np.nan_to_num(ratio(2 * shared, y + p + gap * gap)), np.nan)[()],
        "pcc": np.where(known, np.nan_to_num(ratio(shared, np.sqrt(y * p))), np.nan)[()],
        "icc": np.where(known, np.nan_to_num(ratio(2 * shared, y + p)), np.nan)[()],
        "rmse": np.sqrt(square)[()],
        "mse": square[()],
        "sagr": agree[()],
    }


def is_constant(sums: np.ndarray) -> np.ndarray:
    """(…) whether the truth in sums of `moments` (…, 9) is one value, of which no correlation can be told; also without rows.

    >>> bool(is_constant(moments([0.2, 0.2], [0.1, 0.3]).sum(0)))
    True
    """
    means = np.asarray(ratio(sums[..., 1:], sums[..., :1] + 0 * sums[..., 1:]))
    return ~(_variance(means[..., 0], means[..., 2]) > 0)


def _variance(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    # A constant leaves rounding in its variance, of the order of its square.
    return np.where(square - mean * mean > 1e-13 * square, square - mean * mean, 0 * square)


def regression(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """All metrics of one dimension."""
    return {name: float(value) for name, value in of_moments(moments(truth, predicted).sum(0)).items()}


def ccc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Concordance correlation coefficient, see `of_moments`."""
    return regression(truth, predicted)["ccc"]


def confidence_bins(truth: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> np.ndarray:
    """(N, bins, 3): for each row confidence, whether it is right, and 1, in the bin of its confidence; zeros without truth.

    Args:
        truth: (N,) class indices. probabilities: (N, K).
    """
    truth, probabilities = np.asarray(truth, np.int64), np.asarray(probabilities, float)
    rows = np.flatnonzero(truth >= 0)
    confidence, right = probabilities[rows].max(1), probabilities[rows].argmax(1) == truth[rows]
    found = np.zeros((len(truth), bins, 3))
    found[rows, np.minimum((confidence * bins).astype(int), bins - 1)] = np.stack([confidence, right, np.ones(len(rows))], 1)
    return found


def ece(bins: np.ndarray) -> Figure:
    """Expected calibration error of the top class (Guo et al. 2017), from sums of `confidence_bins` (…, bins, 3)."""
    return ratio(np.abs(bins[..., 0] - bins[..., 1]).sum(-1), bins[..., 2].sum(-1))


def temper(probabilities: ArrayLike, temperature: ArrayLike) -> np.ndarray:
    """(N, K) probabilities as softmax(log p / T), with T (N,): above 1 less sure, below 1 surer, the order kept.

    >>> temper([[0.8, 0.2]], [0.5]).round(3).tolist()
    [[0.941, 0.059]]
    """
    logs = np.log(np.maximum(np.asarray(probabilities, float), 1e-300)) / np.asarray(temperature, float)[:, None]
    raised = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def calibration(truth: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error, and its bins.

    Args:
        truth: (N,). probabilities: (N, K).

    Returns:
        The error, and per bin that holds a row: `confidence`, `accuracy` (means) and `count`.
    """
    sums = confidence_bins(truth, probabilities, bins).sum(0)
    rows = [
        {"confidence": float(sure / count), "accuracy": float(right / count), "count": int(count)}
        for sure, right, count in sums
        if count
    ]
    return ece(sums), rows


def clip_figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric of `of_moments` inside each clip: (…, 2) its value and 1, from the clip's sums of `moments` (…, 9).

    The mean over clips is the sum of the first over that of the second. Zeros for clips without rows, and of correlations
    (`CORRELATIONS`) for clips of constant truth.
    """
    there, varies = sums[..., 0] > 0, ~is_constant(sums)
    found = {}
    for name, value in of_moments(sums).items():
        kept = varies if name in CORRELATIONS else there
        found[name] = np.stack([np.where(kept, np.nan_to_num(value), 0), kept], -1)
    return found


def _mean(values: np.ndarray, taken: np.ndarray) -> Figure:
    return ratio(np.where(taken, values, 0).sum(-1), taken.sum(-1))


def ratio(part: ArrayLike, whole: ArrayLike) -> Figure:
    """NaN for a part of nothing."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)[()]


def _diagonal(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _seen(matrix: np.ndarray) -> np.ndarray:
    """(…, K) whether a class occurs in truth or prediction."""
    return matrix.sum(-2) + matrix.sum(-1) > 0
