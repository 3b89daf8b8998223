"""How right a model is when it may stay silent: the clips it is least sure of are left out (El-Yaniv and Wiener 2010)."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline import metrics

from . import intervals
from .intervals import Draws
from .sums import Figures, Groups, Part, indices, probabilities

#: Shares of the clips that are answered, the surest first.
COVERAGES = np.arange(1, 21) / 20
#: The coverage of the figures in `metrics.json`.
SHOWN = 0.8


def selective_part(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...]) -> Part:
    """`accuracy_at_80` and `uar_at_80`, of the surest 80 % of the clips, and `selective_accuracy`, the mean over `COVERAGES`."""
    return Part(_counts(tables, groups, classes), _figures)


def draw_curve(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...], draws: Draws | None) -> pl.DataFrame:
    """`coverage`, `metric` (accuracy, uar) and the interval: a row per coverage and metric."""
    part = Part(_counts(tables, groups, classes), _curves)
    return pl.DataFrame(
        [
            {"coverage": float(share), "metric": name, **value.rounded()}
            for name, values in intervals.estimate_each([part], draws).items()
            for share, value in zip(COVERAGES, values, strict=True)
        ],
        infer_schema_length=None,
    )


def choose_surest(probability: np.ndarray, coverage: float) -> np.ndarray:
    """(N,) whether a clip is among the surest `coverage` of them, by its greatest probability (N, C); the first of equals.

    >>> choose_surest(np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]]), 0.5).tolist()
    [True, False, True]
    """
    order = np.argsort(-probability.max(1), kind="stable")
    kept = np.zeros(len(order), bool)
    # What is left of rounding must not take one clip more.
    kept[order[: int(np.ceil(coverage * len(order) - 1e-9))]] = True
    return kept


def _counts(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...]) -> np.ndarray:
    """(seeds, groups, coverages, C, 2) of each class: clips that are right, and clips, among those answered."""
    found = []
    for table in tables:
        known = table.filter(pl.col("truth").is_in(list(classes)))
        truth, probability = indices(known["truth"], classes), probabilities(known, classes)
        right = truth == indices(known["predicted"], classes)
        rows = np.zeros((len(known), len(COVERAGES), len(classes), 2))
        for place, share in enumerate(COVERAGES):
            kept = np.flatnonzero(choose_surest(probability, share))
            rows[kept, place, truth[kept]] = np.stack([right[kept], np.ones(len(kept))], 1)
        found.append(groups.sum(known["id"].to_list(), rows))
    return np.stack(found)


def _curves(counts: np.ndarray) -> Figures:
    right, total = counts[..., 0], counts[..., 1]
    return {"accuracy": metrics.ratio(right.sum(-1), total.sum(-1)), "uar": _mean(metrics.ratio(right, total))}


def _figures(counts: np.ndarray) -> Figures:
    place = int(np.flatnonzero(np.isclose(COVERAGES, SHOWN))[0])
    percent = round(100 * SHOWN)
    at = _curves(counts[..., place, :, :])
    every = metrics.ratio(counts[..., 0].sum(-1), counts[..., 1].sum(-1))
    return {f"accuracy_at_{percent}": at["accuracy"], f"uar_at_{percent}": at["uar"], "selective_accuracy": _mean(every)}


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, without what is unknown."""
    known = np.isfinite(values)
    return np.asarray(metrics.ratio(np.where(known, values, 0).sum(-1), known.sum(-1)))
