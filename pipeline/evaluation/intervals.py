"""How sure: intervals over seeds, bootstrap over speakers, paired tests.

scipy is imported where it is used: the report reads intervals and computes none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """A mean and the bounds it lies between with the level stated."""

    mean: float
    low: float
    high: float

    def rounded(self, digits: int = 6) -> dict[str, float | None]:
        """For JSON: NaN becomes null."""
        return {name: round(float(value), digits) if np.isfinite(value) else None for name, value in self._asdict().items()}


def over_seeds(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean ± Student t interval over independent runs. One run has no interval: its bounds are NaN."""
    known = np.asarray([v for v in values if np.isfinite(v)], float)
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(mean, float("nan"), float("nan"))
    from scipy import stats

    half = float(stats.t.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return Interval(mean, mean - half, mean + half)


def over_groups(
    statistic: Callable[[np.ndarray], float],
    groups: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap of whole groups (speakers): clips of one speaker are not independent.

    Args:
        statistic: row positions → value.
        groups: group of each row.

    Returns:
        The statistic of all rows and the percentile interval; bounds NaN with fewer than two groups.
    """
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(inverse == g) for g in range(len(names))]
    whole = float(statistic(np.arange(len(inverse))))
    if len(names) < 2:
        return Interval(whole, float("nan"), float("nan"))

    from scipy import stats

    def resampled(chosen: np.ndarray) -> float:
        return statistic(np.concatenate([members[int(g)] for g in chosen]))

    with warnings.catch_warnings():
        # A metric that does not vary over resamples has a degenerate interval, which is the right answer.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (np.arange(len(names)),),
            resampled,
            vectorized=False,
            n_resamples=resamples,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return Interval(whole, float(result.confidence_interval.low), float(result.confidence_interval.high))


class Comparison(NamedTuple):
    """Paired comparison: mean of a - b, and the two-sided p value."""

    difference: float
    p: float


def paired(first: ArrayLike, second: ArrayLike, *, resamples: int = 4999, seed: int = 0) -> Comparison:
    """Paired permutation test: scores of the same clips (or seeds) under two models, swapped at random.

    Pairs with a NaN take no part. Exact when all sign patterns number `resamples` or fewer.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    known = np.isfinite(a) & np.isfinite(b)
    difference = (a - b)[known]
    if not len(difference):
        return Comparison(float("nan"), float("nan"))
    if not difference.any():
        return Comparison(0.0, 1.0)
    from scipy import stats

    result = stats.permutation_test(
        (difference,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=256,
        rng=np.random.default_rng(seed),
    )
    return Comparison(float(difference.mean()), float(result.pvalue))
