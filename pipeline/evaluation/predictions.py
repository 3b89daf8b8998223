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


def tell_traces(answers: Answers, truth: Mapping[str, np.ndarray], names: tuple[str, ...]) -> pl.DataFrame | None:
    """Predicted dimensions at the annotated times of each clip: `id`, `time`, `truth_<dimension>`, `pred_<dimension>`.

    Predictions sit at the token centres of the run's base stream and are interpolated to the annotations, so that
    all variants are compared at the same instants. A clip without that stream gets the clip's value. Where the model says how
    sure it is, `sd_<dimension>` is the standard deviation; of a clip without the stream it is NaN.

    Returns:
        None where nothing is predicted over time, or no clip has annotations.
    """
    if answers.tokens is None:
        return None
    said = [f"pred_{name}" for name in names]
    said += [f"sd_{name}" for name in names if f"sd_{name}" in answers.tokens.columns]
    tokens, places = answers.tokens.select("time", *said).to_numpy(), _find_clips(answers.tokens["id"])
    clips, known, values = [], [], []
    for clip, *dimensions in answers.whole.select("id", *names).iter_rows():
        if (course := truth.get(clip)) is None:
            continue
        if (mine := places.get(clip)) is not None:
            told = interpolate(tokens[mine], course[:, 0])
        else:
            lacking = [np.nan] * (len(said) - len(names))
            told = np.array([[np.nan if one is None else one for one in (*dimensions, *lacking)]] * len(course), float)
        clips += [clip] * len(course)
        known.append(course)
        values.append(told.reshape(len(course), len(said)).astype(float))
    if not clips:
        return None
    columns = np.concatenate([np.concatenate(known), np.concatenate(values)], 1)
    named = ["time", *(f"truth_{name}" for name in names), *said]
    return pl.DataFrame({"id": clips, **{name: columns[:, i] for i, name in enumerate(named)}})


def _find_clips(ids: pl.Series) -> dict[str, np.ndarray]:
    """Clip → its rows, in order."""
    values, count = np.unique(ids.to_numpy(), return_inverse=True)
    rows = np.split(np.argsort(count, kind="stable"), np.cumsum(np.bincount(count, minlength=len(values)))[:-1])
    return dict(zip(values.tolist(), rows, strict=True))


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
