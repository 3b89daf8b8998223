"""What the models scored, for the report: read from `reports/`, None where the run has no such thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import metrics as measures
from pipeline.runs.folders import FUSED, WHOLE

from .intervals import Interval
from .plots import Bin
from .provenance import read_json

TITLES = {
    "accuracy": "Accuracy",
    "uar": "UAR",
    "uar_strict": "UAR, strict",
    "macro_f1": "Macro F1",
    "macro_f1_zero": "Macro F1, absent as 0",
    "weighted_f1": "Weighted F1",
    "micro_f1": "Micro F1",
    "ece": "ECE",
    "ece_scaled": "ECE, temperature scaled",
    "accuracy_at_80": "Accuracy, surest 80 %",
    "uar_at_80": "UAR, surest 80 %",
    "selective_accuracy": "Accuracy, mean over coverages",
    "temporal_consistency": "Temporal consistency",
    "temporal_consistency_sd": "Temporal consistency, sd over clips",
    "contrastive_accuracy": "Contrastive accuracy",
    "ccc": "CCC, mean",
    "pcc": "PCC",
    "icc": "ICC(3,1)",
    "rmse": "RMSE",
    "mse": "MSE",
    "sagr": "SAGR",
    "mae": "MAE",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "support": "Clips",
    "clips": "Clips",
    "count": "Clips",
}

#: Read when nothing else is asked for, first found first.
HEADLINES = ("uar", "ccc", "accuracy")

#: Metrics for which less is better.
LESS = ("rmse", "mse", "mae", "ece", "loss")


def name_metric(metric: str) -> str:
    """A metric's name for people: `ccc_valence` → `CCC valence`."""
    if metric in TITLES:
        return TITLES[metric]
    if metric.startswith("frame_"):
        how = "mean of clips" if metric.endswith("_per_clip") else "pooled"
        return f"{name_metric(metric.removeprefix('frame_').removesuffix('_per_clip'))} over frames, {how}"
    for suffix, words in (("_mean_of_folds", "mean of folds"), ("_sd_of_folds", "sd of folds")):
        if metric.endswith(suffix):
            return f"{name_metric(metric.removesuffix(suffix))}, {words}"
    parts = metric.split("_")
    first = [w for w in parts if w in ("ccc", "pcc", "icc", "rmse", "mse", "sagr", "mae")]
    rest = [w for w in parts if w not in first]
    text = " ".join([w.upper() for w in first] + rest)
    return text[:1].upper() + text[1:]


def read_scores(reports: Path) -> dict[str, dict[str, Interval]]:
    """Variant → metric → interval: fused, ensemble, linear, then the rest. Empty when nothing was evaluated."""
    found = read_json(reports / "metrics.json")
    result: dict[str, dict[str, Interval]] = {}
    for variant, values in sorted((found if isinstance(found, dict) else {}).items(), key=lambda item: rank_variant(item[0])):
        if isinstance(values, dict):
            kept = {name: read_interval(value) for name, value in values.items()}
            result[variant] = {name: value for name, value in kept.items() if value is not None}
    return {variant: values for variant, values in result.items() if values}


def rank_variant(name: str) -> tuple[int, str]:
    """Sorts variants: fused, ensemble, student, linear, then the rest by name."""
    return WHOLE.index(name) if name in WHOLE else len(WHOLE), name


def read_interval(value: object) -> Interval | None:
    """A dict of `Interval`'s fields or a bare number as an interval; None without a mean."""
    found = value if isinstance(value, dict) else {"mean": value}
    given = {name: found.get(name) for name in Interval._fields}
    numbers = {name: float(n) for name, n in given.items() if isinstance(n, (int, float)) and not isinstance(n, bool)}
    return Interval(**numbers) if "mean" in numbers else None


def name_variant(variant: str, streams: Iterable[str]) -> str:
    """A variant for people: of one stream alone nothing is fused."""
    names = list(streams)
    return names[0] if variant == FUSED and len(names) == 1 else variant


def choose_headline(metrics: Iterable[str], asked: str) -> str:
    """The metric of `metrics` the page leads with: the one that selected the checkpoint, else the usual ones."""
    known = list(metrics)
    return next(name for name in (asked, *HEADLINES, *known) if name in known)


def less_is_better(metric: str) -> bool:
    return any(part in LESS for part in metric.split("_"))


@dataclass(frozen=True)
class Confusion:
    """Counts (K, K), rows = truth, and the same as shares of each row."""

    classes: list[str]
    counts: list[list[int]]
    shares: list[list[float]]
    support: list[int]


def read_confusion(reports: Path, classes: Iterable[str] = ()) -> Confusion | None:
    """The confusion matrix of `plots/confusion.csv`; classes in the order given, then sorted."""
    table = read_csv(reports / "plots" / "confusion.csv", ("actual", "predicted"))
    if table is None:
        return None
    table = table.with_columns(pl.col("actual", "predicted").cast(pl.String)).drop_nulls(["actual", "predicted"])
    seen = set(table["actual"]) | set(table["predicted"])
    names = [name for name in classes if name in seen] + sorted(seen - set(classes))
    place = {name: i for i, name in enumerate(names)}
    matrix = measures.confusion([place[n] for n in table["actual"]], [place[n] for n in table["predicted"]], len(names))
    support = matrix.sum(1)
    shares = matrix / np.maximum(support, 1)[:, None]
    return Confusion(names, matrix.tolist(), shares.tolist(), support.tolist())


def read_csv(path: Path, needed: tuple[str, ...]) -> pl.DataFrame | None:
    """A CSV table with at least these columns; None when it is absent, empty or has not."""
    if not path.is_file():
        return None
    table = pl.read_csv(path, infer_schema_length=None)
    return None if table.is_empty() or not set(needed) <= set(table.columns) else table


def read_parquet(path: Path) -> pl.DataFrame | None:
    """A table that may be absent or empty."""
    if not path.is_file():
        return None
    table = pl.read_parquet(path)
    return None if table.is_empty() else table


def select_fused(table: pl.DataFrame | None) -> pl.DataFrame | None:
    """The rows of the fused variant; of the first variant when the run has no fused one."""
    if table is None or "variant" not in table.columns:
        return table
    names = table["variant"].unique().to_list()
    return table.filter(pl.col("variant") == (FUSED if FUSED in names else min(names)))


def fill_bins(predictions: pl.DataFrame | None) -> list[Bin] | None:
    """Every single prediction (each seed by itself) in bins of confidence; None without classes or truth."""
    table = select_fused(predictions)
    if table is None or "truth" not in table.columns:
        return None
    classes = [name[2:] for name in table.columns if name.startswith("p_")]
    place = {name: i for i, name in enumerate(classes)}
    truth = [place.get(name, -1) for name in table["truth"].cast(pl.String).to_list()]
    chances = table.select([f"p_{name}" for name in classes]).fill_null(0.0).to_numpy()
    if max(truth, default=-1) < 0:
        return None
    bins = measures.calibration(truth, chances)[1]
    return [Bin(b["confidence"], b["accuracy"], int(b["count"])) for b in bins]


def select_points(predictions: pl.DataFrame | None, dimension: str, limit: int = 1500) -> tuple[list[float], list[float]] | None:
    """Truth and prediction per clip (mean over seeds and folds), evenly thinned to `limit` clips."""
    table = select_fused(predictions)
    if table is None or not {dimension, f"truth_{dimension}"} <= set(table.columns):
        return None
    kept = (
        table.select("id", pl.col(dimension).cast(pl.Float64), pl.col(f"truth_{dimension}").cast(pl.Float64))
        .fill_nan(None)
        .drop_nulls()
        .group_by("id")
        .mean()
        .sort("id")
    )
    if kept.is_empty():
        return None
    chosen = kept.gather(np.unique(np.linspace(0, len(kept) - 1, min(limit, len(kept))).astype(int)))
    return chosen[f"truth_{dimension}"].to_list(), chosen[dimension].to_list()


@dataclass(frozen=True)
class Trace:
    """Truth and prediction over one clip's time; `place` says why this clip was chosen."""

    id: str
    place: str
    time: list[float]
    values: dict[str, list[float | None]]
    error: float


def choose_traces(reports: Path, count: int = 4) -> tuple[list[Trace], int] | None:
    """A few clips from best to worst mean absolute error, and how many clips there are to choose from."""
    table = read_parquet(reports / "traces.parquet")
    if table is None or not {"id", "time"} <= set(table.columns):
        return None
    names = [n for n in ("valence", "arousal", "dominance") if {f"pred_{n}", f"truth_{n}"} <= set(table.columns)]
    if not names:
        return None
    columns = [part for name in names for part in (f"truth_{name}", f"pred_{name}", f"sd_{name}") if part in table.columns]
    table = table.group_by("id", "time").agg(pl.col(columns).cast(pl.Float64).fill_nan(None).mean()).sort("id", "time")
    gaps = pl.mean_horizontal([(pl.col(f"pred_{n}") - pl.col(f"truth_{n}")).abs() for n in names])
    ranked = (
        table.group_by("id")
        .agg(gaps.mean().alias("error"), pl.len().alias("rows"))
        .filter((pl.col("rows") > 1) & pl.col("error").is_not_null())
        .sort("error", "id")
    )
    if ranked.is_empty():
        return None
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int)).tolist()
    chosen = []
    for place in places:
        clip, error = ranked["id"][place], ranked["error"][place]
        part = table.filter(pl.col("id") == clip)
        chosen.append(
            Trace(
                clip,
                _place(place, len(ranked)),
                part["time"].to_list(),
                {name: part[name].to_list() for name in columns},
                error,
            )
        )
    return chosen, len(ranked)


def _place(place: int, total: int) -> str:
    if place == 0:
        return "closest to the truth"
    return "farthest from the truth" if place == total - 1 else f"rank {place + 1} of {total}"
