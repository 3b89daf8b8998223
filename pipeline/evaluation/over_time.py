"""What the report shows of predictions over time, beside the traces: figures of frames, and paths of the embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from markupsafe import Markup

from pipeline import metrics

from . import plots, results
from .intervals import Interval
from .provenance import read_json

#: Metrics of a dimension, as the table has them.
MEASURES = tuple(metrics.regression([0.0, 1.0], [0.0, 1.0]))
#: Of a whole run.
WHOLE = ("frame_ccc", "frame_ccc_per_clip", "temporal_consistency", "temporal_consistency_sd", "contrastive_accuracy")


def show_figures(reports: Path, variant: str, dimensions: Sequence[str]) -> dict | None:
    """The table of one variant's figures of frames: each pooled and as mean of clips, with both intervals; None without."""
    found = read_json(reports / "metrics.json")
    mine = found.get(variant) if isinstance(found, dict) else None
    if not isinstance(mine, dict) or not any(name.startswith("frame_") for name in mine):
        return None
    rows = []
    for dimension in dimensions:
        for measure in MEASURES:
            name = f"frame_{dimension}_{measure}"
            if name in mine or f"{name}_per_clip" in mine:
                rows.append(
                    {
                        "name": results.name_metric(f"{dimension}_{measure}"),
                        "less": results.less_is_better(measure),
                        "pooled": read_both(mine.get(name)),
                        "inside": read_both(mine.get(f"{name}_per_clip")),
                    }
                )
    whole = [(results.name_metric(name), read_both(mine[name])) for name in WHOLE if name in mine]
    return {"rows": rows, "whole": whole}


def read_both(value: object) -> tuple[Interval | None, Interval | None]:
    """(the interval by speaker or what stands in for it, the one by clip) of an entry of `metrics.json`."""
    if not isinstance(value, Mapping):
        return None, None
    by_clip = {side: value[f"{side}_by_clip"] for side in ("low", "high") if f"{side}_by_clip" in value}
    return results.read_interval(value), results.read_interval({"mean": value.get("mean"), **by_clip}) if by_clip else None


def show_paths(reports: Path, chosen: Sequence[results.Trace]) -> list[dict]:
    """Drawings of the embedding's way through its two principal axes, for the clips whose traces are shown: by time, and by the
    truth of each dimension; empty where nothing is predicted over time."""
    table = results.read_parquet(reports / "trajectories.parquet")
    if table is None:
        return []
    shown = []
    for trace in chosen:
        part = table.filter(pl.col("id") == trace.id).sort("time")
        if len(part) < 2:
            continue
        times = part["time"].to_numpy()
        spots = part.select("x", "y").to_numpy()
        length = max(float(times[-1] - times[0]), 1e-9)
        svgs = [
            _draw(spots, (times - times[0]) / length, f"path of {trace.id}, from pale at its start to strong at its end", "time")
        ]
        for name, truth in trace.values.items():
            if not name.startswith("truth_"):
                continue
            known = [(t, v) for t, v in zip(trace.time, truth, strict=True) if v is not None]
            if known:
                dimension = name.removeprefix("truth_")
                values = np.interp(times, [t for t, _ in known], [v for _, v in known])
                svgs.append(_draw(spots, values, f"path of {trace.id}, coloured by {dimension}", dimension))
        shown.append({"id": trace.id, "share": float(part["share"][0]), "svgs": svgs})
    return shown


def _draw(spots: np.ndarray, values: np.ndarray, description: str, title: str) -> Markup:
    return plots.draw_path(spots[:, 0].tolist(), spots[:, 1].tolist(), values.tolist(), title, description)
