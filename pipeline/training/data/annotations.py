"""Truth over time, as numbers."""

from __future__ import annotations

import numpy as np
import polars as pl


def frame_truth(table: pl.DataFrame, allowed: set[str], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Annotations of the allowed clips: id → (M, 1 + K) time and dimensions, in time order."""
    columns = [pl.col(n).cast(pl.Float64) if n in table.columns else pl.lit(None, pl.Float64).alias(n) for n in names]
    kept = table.filter(pl.col("id").is_in(list(allowed))).sort("id", "time")
    return {
        part["id"][0]: part.select("time", *columns).fill_null(float("nan")).to_numpy()
        for part in kept.partition_by("id", maintain_order=True)
    }


def interpolate(truth: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Annotations (M, 1 + K) at the given seconds: (T, K) float32, NaN for a dimension without truth."""
    out = np.full((len(centres), truth.shape[1] - 1), np.nan, np.float32)
    for k in range(out.shape[1]):
        known = np.isfinite(truth[:, 1 + k])
        if known.any():
            out[:, k] = np.interp(centres, truth[known, 0], truth[known, 1 + k])
    return out
