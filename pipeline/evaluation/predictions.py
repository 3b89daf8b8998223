"""Predictions of trained runs on the held-out clips of their fold, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pipeline.runs.folders import FUSED
from pipeline.runs.predict import read_spread
from pipeline.runs.run import TrainedModel
from pipeline.storage import tables
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.labels import frame_truth, interpolate
from pipeline.training.data.views import predict_views

#: Clips predicted at a time.
BATCH = 128

#: With more streams, not every set of them is predicted.
MOST_STREAMS = 4


def predict_test(
    run: TrainedModel, data: Dataset, rows: torch.Tensor, drop: frozenset[str] = frozenset()
) -> dict[str, torch.Tensor]:
    """Outputs of the clips at `rows`, with the streams `drop` missing in all of them."""
    return predict_views(run.model, data.read(run.model.spec.streams), rows, drop, size=BATCH)


def predict_rows(run: TrainedModel, data: Dataset, rows: torch.Tensor, drop: frozenset[str] = frozenset()) -> dict:
    """Columns `predicted`, `p_<class>`, one per dimension, and `share_<stream>` where a fusion gives them."""
    outputs, spec = predict_test(run, data, rows, drop), run.model.spec
    columns: dict[str, object] = {"id": [data.ids[i] for i in rows.tolist()]}
    if "emotion" in outputs:
        p = outputs["emotion"].softmax(1).numpy()
        columns["predicted"] = [spec.classes[i] for i in p.argmax(1)]
        columns |= {f"p_{name}": p[:, k] for k, name in enumerate(spec.classes)}
    if "dimensions" in outputs:
        columns |= {name: outputs["dimensions"][:, k].numpy() for k, name in enumerate(spec.dimensions)}
    if "shares" in outputs and len(run.streams) > 1:
        columns |= {f"share_{name}": outputs["shares"][:, k].numpy() for k, name in enumerate(run.streams)}
    return columns


def trace_rows(run: TrainedModel, data: Dataset, rows: torch.Tensor, truth: dict[str, np.ndarray]) -> list[dict]:
    """Predicted dimensions at the annotated times of each clip.

    Predictions sit at the token centres of the run's base stream and are interpolated to the annotations, so that
    all variants are compared at the same instants. A clip without that stream gets the clip's value. Where the model says how
    sure it is, `sd_<dimension>` is the standard deviation; of a clip without the stream it is NaN.
    """
    spec = run.model.spec
    if spec.base is None:
        return []
    outputs = predict_test(run, data, rows)
    if "frames" not in outputs:
        return []
    tokens, sure = data.batch(rows, [spec.base]).streams[spec.base], read_spread(outputs, "frames")
    result = []
    for i, row in enumerate(rows.tolist()):
        known = truth.get(data.ids[row])
        if known is None:
            continue
        here = tokens.mask[i].numpy()
        values, spread = np.repeat(outputs["dimensions"][i : i + 1].numpy(), len(known), 0), None
        if here.any():
            centres = tokens.times[i].numpy()[here].mean(1)
            values = interpolate(np.column_stack([centres, outputs["frames"][i].numpy()[here]]), known[:, 0])
            if sure is not None:
                spread = interpolate(np.column_stack([centres, sure[i].numpy()[here]]), known[:, 0])
        result += [
            {
                "id": data.ids[row],
                "time": float(known[m, 0]),
                **{f"truth_{name}": float(known[m, 1 + k]) for k, name in enumerate(spec.dimensions)},
                **{f"pred_{name}": float(values[m, k]) for k, name in enumerate(spec.dimensions)},
                **({} if sure is None else _tell_spread(spread, m, spec.dimensions)),
            }
            for m in range(len(known))
        ]
    return result


def _tell_spread(spread: np.ndarray | None, row: int, names: tuple[str, ...]) -> dict[str, float]:
    return {f"sd_{name}": float("nan") if spread is None else float(spread[row, k]) for k, name in enumerate(names)}


def subsets(streams: Iterable[str], largest: int = MOST_STREAMS) -> list[frozenset[str]]:
    """Sets of streams to keep, the whole set first and none last; with more than `largest` streams, only leave-one-out.

    >>> [sorted(kept) for kept in subsets(["text", "audio"])]
    [['audio', 'text'], ['audio'], ['text'], []]
    """
    names = sorted(streams)
    if len(names) > largest:
        return [frozenset(c) for size in (len(names), len(names) - 1) for c in combinations(names, size)]
    least = 0 if len(names) > 1 else 1  # what a single stream's model says without it is of no use to anyone
    return [frozenset(c) for size in range(len(names), least - 1, -1) for c in combinations(names, size)]


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
