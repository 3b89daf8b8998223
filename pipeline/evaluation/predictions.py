"""Predictions of trained runs on the held-out clips of their fold, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.runs.answers import Answers
from pipeline.runs.folders import FUSED
from pipeline.storage import tables
from pipeline.training.data.annotations import frame_truth, interpolate


def trace_rows(answers: Answers, truth: Mapping[str, np.ndarray], names: tuple[str, ...]) -> list[dict]:
    """Predicted dimensions at the annotated times of each clip.

    Predictions sit at the token centres of the run's base stream and are interpolated to the annotations, so that
    all variants are compared at the same instants. A clip without that stream gets the clip's value. Where the model says how
    sure it is, `sd_<dimension>` is the standard deviation; of a clip without the stream it is NaN.
    """
    if answers.tokens is None:
        return []
    tokens = answers.tokens.partition_by("id", as_dict=True)
    said = [f"pred_{name}" for name in names]
    sure = [f"sd_{name}" for name in names if f"sd_{name}" in answers.tokens.columns]
    result = []
    for clip, *dimensions in answers.whole.select("id", *names).iter_rows():
        known = truth.get(clip)
        if known is None:
            continue
        values, spread = np.repeat([dimensions], len(known), 0), None
        if (mine := tokens.get((clip,))) is not None:
            values = interpolate(mine.select("time", *said).to_numpy(), known[:, 0])
            spread = interpolate(mine.select("time", *sure).to_numpy(), known[:, 0]) if sure else None
        result += [
            {
                "id": clip,
                "time": float(known[m, 0]),
                **{f"truth_{name}": float(known[m, 1 + k]) for k, name in enumerate(names)},
                **{f"pred_{name}": float(values[m, k]) for k, name in enumerate(names)},
                **(_tell_spread(spread, m, names) if sure else {}),
            }
            for m in range(len(known))
        ]
    return result


def _tell_spread(spread: np.ndarray | None, row: int, names: tuple[str, ...]) -> dict[str, float]:
    return {f"sd_{name}": float("nan") if spread is None else float(spread[row, k]) for k, name in enumerate(names)}


def truth_table(truth: str | Path, annotations: str | Path, names: tuple[str, ...]) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Held-out labels by id (clip-level dimensions filled from annotations), and the annotations."""
    table = tables.read(truth)
    frames = {}
    if names and Path(annotations).is_file():
        frames = frame_truth(tables.read(annotations), set(table["id"]), names)
    columns = [
        pl.col(name) if name in table.columns else pl.lit(None, kind).alias(name)
        for name, kind in (("emotion", pl.String()), *((n, pl.Float64()) for n in names))
    ]
    table = table.select("id", *columns)
    for k, name in enumerate(names):
        means = pl.DataFrame(
            {"id": list(frames), "mean": [_mean(f[:, 1 + k]) for f in frames.values()]},
            schema={"id": pl.String(), "mean": pl.Float64()},
        )
        table = (
            table.join(means, on="id", how="left")
            .with_columns(pl.coalesce(pl.col(name).cast(pl.Float64), "mean").alias(name))
            .drop("mean")
        )
    return table, frames


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def mean_trace(traces: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """The fused runs' traces, mean over seeds; an empty table when there are no frames.

    `sd_<dimension>`, where there is one, is that of the mixture of the seeds: what they say, and how far apart they are.
    """
    columns = [f"{side}_{name}" for name in names for side in ("truth", "pred")]
    if not traces.height:
        return pl.DataFrame(schema={"id": pl.String(), "time": pl.Float64(), **dict.fromkeys(columns, pl.Float64())})
    fused = traces.filter(pl.col("variant") == FUSED)
    spread = [mix_spread(name) for name in names if f"sd_{name}" in traces.columns]
    return fused.group_by("id", "time", maintain_order=True).agg(pl.col(columns).mean(), *spread)


def mix_spread(name: str, share: pl.Expr | None = None) -> pl.Expr:
    """Standard deviation of a mixture of rows `pred_<name>` and `sd_<name>`; unknown where one of them is.

    Args:
        share: what each row is worth, together 1; None = all alike.
    """
    value, spread = pl.col(f"pred_{name}").cast(pl.Float64), pl.col(f"sd_{name}").cast(pl.Float64)

    def mean(column: pl.Expr) -> pl.Expr:
        return column.mean() if share is None else (column * share).sum()

    variance = mean(spread**2 + value**2) - mean(value) ** 2
    known = spread.is_finite().fill_null(False).all()
    return pl.when(known).then(variance.clip(0.0).sqrt()).otherwise(None).alias(f"sd_{name}")
