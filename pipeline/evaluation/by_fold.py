"""Figures of every fold by itself and of every corpus tested, and their mean and deviation over folds.

The headline is pooled: the metric of all folds' decisions together. A mean over folds is another number, and the one many papers
give, so both are told by name: `uar` is pooled, `uar_mean_of_folds` and `uar_sd_of_folds` are over folds.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from .intervals import Interval
from .results import name_metric
from .sums import Groups, clip_parts

#: Metrics that folds are compared by, where they exist.
COMPARED = ("uar", "uar_strict", "macro_f1", "weighted_f1", "accuracy", "ccc", "valence_ccc", "arousal_ccc", "dominance_ccc")
MEAN, DEVIATION = "mean_of_folds", "sd_of_folds"

Figures = dict[str, float | None]


def name_folds(folds: pl.DataFrame) -> dict[int, str]:
    """Fold → what people call it, from `data/folds.parquet`."""
    if "name" not in folds.columns:
        return {fold: f"fold {fold}" for fold in folds["fold"].unique()}
    return dict(folds.select("fold", "name").unique().iter_rows())


def score_folds(
    seeds: dict[str, list[pl.DataFrame]],
    folds: pl.DataFrame,
    manifest: pl.DataFrame,
    classes: tuple[str, ...],
    dimensions: tuple[str, ...],
) -> dict[str, dict]:
    """The content of `per_fold.json`.

    Args:
        seeds: variant → prediction table of each seed, all folds.

    Returns:
        variant → `folds`, a list of `fold`, `name`, `clips` and each metric (mean over seeds); with several corpora tested
        also `corpus` → clips and metrics, of each fold in `corpora` and of all folds pooled. `mean` and `sd` (of a sample,
        N − 1) of each metric over the folds that have it.
    """
    names, corpus = name_folds(folds), manifest.select("id", "corpus")
    found = {}
    for variant, tables in seeds.items():
        joined = [table.join(corpus, on="id", how="left") for table in tables]
        rows = []
        for fold in sorted(joined[0]["fold"].unique()):
            part = [table.filter(pl.col("fold") == fold) for table in joined]
            row = {"fold": fold, "name": names.get(fold, f"fold {fold}"), **_score(part, classes, dimensions)}
            rows.append(row | _by_corpus(part, classes, dimensions))
        metrics = [name for name in COMPARED if any(row.get(name) is not None for row in rows)]
        columns = {name: np.array([row[name] for row in rows if row.get(name) is not None]) for name in metrics}
        found[variant] = {
            "folds": rows,
            "mean": {name: round(float(values.mean()), 6) for name, values in columns.items()},
            "sd": {name: round(float(values.std(ddof=1)), 6) for name, values in columns.items() if len(values) > 1},
            **_by_corpus(joined, classes, dimensions),
        }
    return found


def over_folds(found: dict) -> dict[str, dict[str, float | None]]:
    """What `metrics.json` says of one variant beside the pooled metrics: nothing of a single fold."""
    if len(found["folds"]) < 2:
        return {}
    sides = ((MEAN, found["mean"]), (DEVIATION, found["sd"]))
    return {f"{name}_{side}": Interval(value).rounded() for side, values in sides for name, value in values.items()}


def pick_headlines(found: dict, metric: str) -> dict[str, float | None]:
    """What a list of experiments shows: `<metric>_mean_of_folds`, `<metric>_sd_of_folds` and `<metric>_on_<corpus>`."""
    shown: dict[str, float | None] = {}
    if len(found["folds"]) > 1:
        shown = {f"{metric}_{MEAN}": found["mean"].get(metric), f"{metric}_{DEVIATION}": found["sd"].get(metric)}
    return shown | {f"{metric}_on_{name}": figures.get(metric) for name, figures in found.get("corpora", {}).items()}


def show_folds(found: object, variant: str, pooled: dict[str, Interval]) -> dict | None:
    """The report's table of one variant: a row per fold (and per corpus in it), mean ± sd, and pooled; None of a single split."""
    mine = found.get(variant) if isinstance(found, dict) else None
    if not mine or (len(mine["folds"]) < 2 and "corpora" not in mine):
        return None
    metrics = [name for name in COMPARED if name in mine["mean"]][:5]
    rows = []
    for row in mine["folds"]:
        rows.append({"name": row["name"], "clips": row["clips"], "values": [row.get(name) for name in metrics]})
        # `a → b, c` is a fold; `a → b` one of its corpora.
        source = row["name"].partition(" → ")[0]
        for corpus, part in row.get("corpora", {}).items():
            name = f"{source} → {corpus}" if " → " in row["name"] else f"{row['name']}, {corpus}"
            rows.append({"name": name, "clips": part["clips"], "values": [part.get(m) for m in metrics]})
    for corpus, part in mine.get("corpora", {}).items():
        rows.append({"name": f"all of {corpus}", "clips": part["clips"], "values": [part.get(m) for m in metrics]})
    return {
        "metrics": [name_metric(name) for name in metrics],
        "rows": rows,
        "mean": [(mine["mean"].get(name), mine["sd"].get(name)) for name in metrics] if len(mine["folds"]) > 1 else [],
        "pooled": [pooled.get(name) for name in metrics],
        "clips": sum(row["clips"] for row in mine["folds"]),
    }


def _by_corpus(tables: list[pl.DataFrame], classes: tuple[str, ...], dimensions: tuple[str, ...]) -> dict[str, dict]:
    """`corpora` → corpus → figures; nothing of one corpus."""
    corpora = sorted(tables[0]["corpus"].drop_nulls().unique())
    if len(corpora) < 2:
        return {}
    parts = {name: [table.filter(pl.col("corpus") == name) for table in tables] for name in corpora}
    return {"corpora": {name: _score(part, classes, dimensions) for name, part in parts.items()}}


def _score(tables: list[pl.DataFrame], classes: tuple[str, ...], dimensions: tuple[str, ...]) -> Figures:
    """`clips` (that have truth) and each metric, mean over seeds; None where it is of nothing."""
    groups = Groups.of(tables[0])
    figures: Figures = {"clips": len(tables[0].filter(pl.col("id").is_in(list(groups.place))))}
    for part in clip_parts(tables, groups, classes, dimensions):
        for name, values in part.figures(part.sums.sum(1)).items():
            if name in COMPARED:
                known = np.asarray(values, float)[np.isfinite(values)]
                figures[name] = round(float(known.mean()), 6) if len(known) else None
    return figures
