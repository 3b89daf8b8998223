"""What a network makes of each instant: how steadily it moves, where it moves, and whether halves of a clip find each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from torch import Tensor

from pipeline import metrics
from pipeline.runs.embed import compare_halves, embed_tokens
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset

from . import intervals
from .intervals import Draws, Interval
from .sums import Figures, Groups, Part

#: Clips embedded at a time.
BATCH = 64
#: Columns of `trajectories.parquet`: seconds, the first two principal components, and their share of the variance.
PATHS = {"id": pl.String(), "time": pl.Float64(), "x": pl.Float64(), "y": pl.Float64(), "share": pl.Float64()}


def look_over_time(
    run: TrainedModel, data: Dataset, rows: Tensor
) -> tuple[pl.DataFrame, list[tuple[str, np.ndarray, np.ndarray]]]:
    """Figures of each clip, and its path.

    Returns:
        `id`, `consistency` (mean cosine of what follows on each other; null for fewer than two tokens) and `found` (whether the
        clip's halves find each other, see `runs.embed.compare_halves`; null without a projection); and per clip with tokens its
        id, seconds (T,) and embeddings (T, W). Both empty for a model that predicts nothing over time.
    """
    spec = run.model.spec
    if spec.base is None:
        return pl.DataFrame(schema={"id": pl.String(), "consistency": pl.Float64(), "found": pl.Float64()}), []
    steady, paths = [], []
    batches = list(data.read(spec.streams).batches(rows, list(spec.streams), spec.turns, BATCH))
    for tokens in embed_tokens(run.model, batches):
        for values, mask, times in zip(tokens.values, tokens.mask, tokens.times, strict=True):
            z = values[mask].double().numpy()
            steady.append(_consistency(z))
            paths.append((times[mask].double().numpy().mean(1), z))
    ids = [data.ids[row] for row in rows.tolist()]
    found = compare_halves(run.model, batches)
    table = pl.DataFrame(
        {"id": ids, "consistency": steady, "found": found}, schema_overrides=dict.fromkeys(("consistency", "found"), pl.Float64())
    )
    return table, [(name, *path) for name, path in zip(ids, paths, strict=True) if len(path[0])]


def _consistency(z: np.ndarray) -> float | None:
    if len(z) < 2:
        return None
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return float((z[1:] * z[:-1]).sum(1).mean())


def reduce_paths(paths: list[tuple[str, np.ndarray, np.ndarray]]) -> pl.DataFrame:
    """Rows of `PATHS`: all clips of one run on its two principal axes, which point so that the greatest loading is positive."""
    if not paths:
        return pl.DataFrame(schema=PATHS)
    values = np.concatenate([z for *_, z in paths])
    values = values - values.mean(0)
    _, size, axes = np.linalg.svd(values, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    spots = np.zeros((len(values), 2))
    spots[:, : len(axes)] = values @ axes.T
    share = float((size[:2] ** 2).sum() / max((size**2).sum(), 1e-300))
    ids = [name for name, times, _ in paths for _ in times]
    times = np.concatenate([times for _, times, _ in paths])
    return pl.DataFrame(
        {"id": ids, "time": times, "x": spots[:, 0], "y": spots[:, 1], "share": np.full(len(times), share)}, schema=PATHS
    )


def estimate_looks(tables: list[pl.DataFrame], groups: Groups, draws: Draws | None) -> dict[str, Interval]:
    """`temporal_consistency`, its deviation over clips `…_sd`, and `contrastive_accuracy`, where they are.

    Args:
        tables: one per seed, all folds, of `look_over_time`.
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
