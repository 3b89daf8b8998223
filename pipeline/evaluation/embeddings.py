"""How steadily a network moves through its embedding, and whether halves of a clip find each other: figures over clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from pipeline import metrics

from . import intervals
from .intervals import Draws, Interval
from .sums import Figures, Groups, Part


def estimate_looks(tables: list[pl.DataFrame], groups: Groups, draws: Draws | None) -> dict[str, Interval]:
    """`temporal_consistency`, its deviation over clips `…_sd`, and `contrastive_accuracy`, where they are.

    Args:
        tables: one per seed, all folds, of `Answers.looks`.
    """
    kinds: dict[str, Callable[[np.ndarray], Figures]] = {"consistency": _steadiness, "found": _share}
    parts = []
    for column, figures in kinds.items():
        known = [table.filter(pl.col(column).is_not_null()) for table in tables]
        if all(len(table) for table in known):
            values = [table[column].to_numpy() for table in known]
            sums = [
                groups.sum(t["id"].to_list(), np.stack([v, v * v, np.ones(len(v))], 1))
                for t, v in zip(known, values, strict=True)
            ]
            parts.append(Part(np.stack(sums), figures))
    return intervals.estimate(parts, draws) if parts else {}


def _share(summed: np.ndarray) -> Figures:
    return {"contrastive_accuracy": metrics.ratio(summed[..., 0], summed[..., 2])}


def _steadiness(summed: np.ndarray) -> Figures:
    mean = metrics.ratio(summed[..., 0], summed[..., 2])
    spread = np.maximum(metrics.ratio(summed[..., 1], summed[..., 2]) - mean**2, 0)
    return {"temporal_consistency": mean, "temporal_consistency_sd": np.sqrt(spread)}
