"""Are clips that feel unlike their class harder? UAR against the distance from the class' mean valence, arousal and dominance."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline import metrics

from .sums import indices

#: Quantiles of difficulty; fewer clips make fewer.
BUCKETS = 20
#: Fewer have no line worth drawing.
LEAST = 3
DIMENSIONS = ("valence", "arousal", "dominance")

SCHEMA = {
    "bucket": pl.Int64(),
    "clips": pl.Int64(),
    "easiest": pl.Float64(),
    "hardest": pl.Float64(),
    "difficulty": pl.Float64(),
    "uar": pl.Float64(),
    "fitted": pl.Float64(),
}


def analyse(
    tables: list[pl.DataFrame], truth: pl.DataFrame, manifest: pl.DataFrame, folds: pl.DataFrame, classes: tuple[str, ...]
) -> tuple[pl.DataFrame, dict[str, object]]:
    """A row per bucket of `BUCKETS` quantiles of difficulty, and what is said of them.

    Args:
        tables: predictions of one variant, one per seed.
        truth: held-out labels. manifest, folds: labels of the training clips, by which each class' mean is known.

    Returns:
        The table (mean difficulty and UAR of each bucket, the fitted line), and `r`, `p`, `slope`, `intercept`, `clips`,
        `dimensions`; or `reason` why there is nothing.
    """
    nothing = pl.DataFrame(schema=SCHEMA)
    names = [n for n in DIMENSIONS if all(n in t.columns and t[n].drop_nulls().len() for t in (truth, manifest))]
    if not classes:
        return nothing, {"reason": "The model predicts no classes."}
    if not names:
        return nothing, {"reason": "The corpus names no valence or arousal beside the classes."}
    first = tables[0].filter(pl.col("truth").is_in(list(classes))).select("id", "fold")
    known = measure(first, truth, find_prototypes(manifest, folds, names), names)
    count = min(BUCKETS, len(known))
    if count < LEAST:
        return nothing, {"reason": f"Of {len(known)} held-out clips alone are class and dimensions known."}
    rows = []
    for place, part in enumerate(np.array_split(np.arange(len(known)), count)):
        clips = known[part.tolist()]
        scores = [_uar(table.filter(pl.col("id").is_in(clips["id"].to_list())), classes) for table in tables]
        ends = clips["difficulty"].to_list()
        means = float(np.mean(ends)), float(np.mean(scores))
        rows.append((place + 1, len(clips), ends[0], ends[-1], *means))
    x, y = (np.array([row[k] for row in rows]) for k in (4, 5))
    line = fit_line(x, y)
    fitted = [line["intercept"] + line["slope"] * value if line["slope"] is not None else None for value in x.tolist()]
    table = pl.DataFrame([(*row, end) for row, end in zip(rows, fitted, strict=True)], schema=SCHEMA, orient="row")
    return table, {**line, "clips": len(known), "dimensions": names}


def find_prototypes(manifest: pl.DataFrame, folds: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """`fold`, `emotion`, and each dimension's mean over the fold's training clips of the class."""
    trained = folds.filter(pl.col("role") == "train").join(manifest.select("id", "emotion", *names), on="id")
    means = [pl.col(name).cast(pl.Float64).mean().alias(f"mean_{name}") for name in names]
    return trained.drop_nulls(["emotion"]).group_by("fold", "emotion", maintain_order=True).agg(means)


def measure(clips: pl.DataFrame, truth: pl.DataFrame, prototypes: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """`id` and `difficulty`, the Euclidean distance of a clip from its class' prototype, easiest first."""
    gap = pl.sum_horizontal((pl.col(n).cast(pl.Float64) - pl.col(f"mean_{n}")) ** 2 for n in names).sqrt()
    return (
        clips.join(truth.select("id", "emotion", *names), on="id")
        .join(prototypes, on=["fold", "emotion"])
        .drop_nulls([*names, *(f"mean_{name}" for name in names)])
        .select("id", gap.alias("difficulty"))
        .sort("difficulty", "id")
    )


def fit_line(x: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """`r` (Pearson), its two-sided `p`, `slope` and `intercept` of least squares; None where either side does not vary."""
    if np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return dict.fromkeys(("r", "p", "slope", "intercept"))
    from scipy.special import stdtr  # without the second that scipy.stats takes to import

    spread_x, shared, spread_y = np.cov(x, y, bias=True).ravel()[[0, 1, 3]]
    r, slope, freedom = float(np.clip(shared / np.sqrt(spread_x * spread_y), -1, 1)), shared / spread_x, len(x) - 2
    # Two points lie on a line whatever they say.
    t = abs(r) * np.sqrt(freedom / max((1 - r) * (1 + r), 1e-20))
    p = 2 * stdtr(freedom, -t) if freedom else 1.0
    values = {"r": r, "p": p, "slope": slope, "intercept": y.mean() - slope * x.mean()}
    return {name: round(float(value), 9) for name, value in values.items()}


def _uar(table: pl.DataFrame, classes: tuple[str, ...]) -> float:
    truth, predicted = (indices(table[name], classes) for name in ("truth", "predicted"))
    return float(metrics.uar(metrics.confusion(truth, predicted, len(classes))))
