"""Predictions of trained runs on the held-out clips of their fold, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pipeline.runs.run import TrainedModel, load_run
from pipeline.storage import tables
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.labels import frame_truth, interpolate
from pipeline.training.loop import joined, predict


def run_folders(runs: str | Path) -> list[Path]:
    """Run folders below `runs`, sorted by variant, fold and seed."""
    found = [path.parent for path in Path(runs).glob("*/fold*/seed*/config.json")]
    return sorted(
        found, key=lambda f: (f.parts[-3], int(f.parts[-2].removeprefix("fold")), int(f.parts[-1].removeprefix("seed")))
    )


def predict_rows(run: TrainedModel, data: Dataset, rows: torch.Tensor, drop: frozenset[str] = frozenset()) -> dict:
    """Columns `predicted`, `p_<class>`, one per dimension, for the clips at `rows`."""
    output, spec = joined(predict(run.model, data, rows, drop=drop)), run.model.spec
    columns: dict[str, object] = {"id": [data.ids[i] for i in rows.tolist()]}
    if output.logits is not None:
        p = output.logits.softmax(1).numpy()
        columns["predicted"] = [spec.classes[i] for i in p.argmax(1)]
        columns |= {f"p_{name}": p[:, k] for k, name in enumerate(spec.classes)}
    if output.dimensions is not None:
        columns |= {name: output.dimensions[:, k].numpy() for k, name in enumerate(spec.dimensions)}
    return columns


def trace_rows(run: TrainedModel, data: Dataset, rows: torch.Tensor, truth: dict[str, np.ndarray]) -> list[dict]:
    """Predicted dimensions at the annotated times of each clip.

    Predictions sit at the token centres of the run's base stream and are interpolated to the annotations, so that
    all variants are compared at the same instants. A clip without that stream gets the clip's value.
    """
    output, spec = joined(predict(run.model, data, rows)), run.model.spec
    if output.frames is None:
        return []
    tokens = data.batch(rows, [spec.base])[spec.base]
    result = []
    for i, row in enumerate(rows.tolist()):
        known = truth.get(data.ids[row])
        if known is None:
            continue
        here = tokens.mask[i].numpy()
        values = np.repeat(output.dimensions[i : i + 1].numpy(), len(known), 0)
        if here.any():
            centres = tokens.times[i].numpy()[here].mean(1)
            values = interpolate(np.column_stack([centres, output.frames[i].numpy()[here]]), known[:, 0])
        result += [
            {
                "id": data.ids[row],
                "time": float(known[m, 0]),
                **{f"truth_{name}": float(known[m, 1 + k]) for k, name in enumerate(spec.dimensions)},
                **{f"pred_{name}": float(values[m, k]) for k, name in enumerate(spec.dimensions)},
            }
            for m in range(len(known))
        ]
    return result


def subsets(streams: Iterable[str], largest: int = 4) -> list[frozenset[str]]:
    """Non-empty sets of streams to keep, the whole set first; with more than `largest` streams, only leave-one-out."""
    names = sorted(streams)
    sizes = range(len(names), 0, -1) if len(names) <= largest else (len(names), len(names) - 1)
    return [frozenset(c) for size in sizes for c in combinations(names, size)]


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


def load_runs(folders: Iterable[Path]) -> Iterable[tuple[dict, TrainedModel]]:
    for folder in folders:
        run = load_run(folder)
        yield run.config, run


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
