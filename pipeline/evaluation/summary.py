"""Numbers from prediction tables: per seed first, then mean and interval over seeds."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline import metrics

from . import intervals
from .intervals import Interval

#: Metrics that a list of experiments shows, where they exist.
SHOWN = ("uar", "macro_f1", "weighted_f1", "accuracy", "ccc", "valence_ccc", "arousal_ccc", "dominance_ccc")


def indices(names: pl.Series, classes: tuple[str, ...]) -> np.ndarray:
    """Class indices, -1 for null and for names that are not classes."""
    known = {name: i for i, name in enumerate(classes)}
    return np.array([known.get(name, -1) for name in names], dtype=np.int64)


def scalars(table: pl.DataFrame, classes: tuple[str, ...], dimensions: tuple[str, ...]) -> dict[str, float]:
    """All metrics of one variant and seed (folds pooled)."""
    result: dict[str, float] = {}
    if classes:
        truth = indices(table["truth"], classes)
        result |= metrics.classification(truth, indices(table["predicted"], classes), len(classes))
        result["ece"] = metrics.calibration(truth, probabilities(table, classes))[0]
    for name in dimensions:
        result |= {
            f"{name}_{key}": value
            for key, value in metrics.regression(table[f"truth_{name}"].to_numpy(), table[name].to_numpy()).items()
        }
    if dimensions:
        result["ccc"] = float(np.mean([result[f"{name}_ccc"] for name in dimensions]))
    return result


def trace_scalars(table: pl.DataFrame, dimensions: tuple[str, ...]) -> dict[str, float]:
    """Frame-level metrics: `frame_<dimension>_<metric>` pooled over all frames, `…_ccc_per_clip` the mean of clips."""
    result: dict[str, float] = {}
    for name in dimensions:
        truth, pred = table[f"truth_{name}"].to_numpy(), table[f"pred_{name}"].to_numpy()
        result |= {f"frame_{name}_{key}": value for key, value in metrics.regression(truth, pred).items()}
        result[f"frame_{name}_ccc_per_clip"] = metrics.mean_per_clip(table["id"].to_list(), truth, pred)
    result["frame_ccc"] = float(np.mean([result[f"frame_{name}_ccc"] for name in dimensions]))
    return result


def over_seeds(per_seed: list[dict[str, float]]) -> dict[str, Interval]:
    return {name: intervals.over_seeds([seed[name] for seed in per_seed]) for name in per_seed[0]}


def pick_headlines(result: dict[str, dict[str, dict]], select: str, fused: str) -> dict[str, float | None]:
    """What a list of experiments shows: the means of `SHOWN`, and of the selecting metric the interval and the best alone.

    Args:
        result: variant → metric → mean, low, high.
        select: metric that selected the checkpoints.
        fused: name of the variant that is shown.
    """
    ours = result.get(fused) or next(iter(result.values()))
    shown: dict[str, float | None] = {}
    for name in (select, *(name for name in SHOWN if name != select)):
        if name not in ours:
            continue
        shown[name] = ours[name]["mean"]
        if name == select:
            shown |= {f"{name}_low": ours[name]["low"], f"{name}_high": ours[name]["high"]}
            alone = [values[name]["mean"] for variant, values in result.items() if variant != fused and name in values]
            shown |= {f"{name}_best_alone": max(alone)} if alone else {}
    return shown


def per_class(tables: list[pl.DataFrame], classes: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Class → precision, recall, F1 over seeds, and support (of one seed)."""
    parts = [
        metrics.per_class(metrics.confusion(indices(t["truth"], classes), indices(t["predicted"], classes), len(classes)))
        for t in tables
    ]
    return {
        name: {
            **{key: intervals.over_seeds([p[key][k] for p in parts]).rounded() for key in ("precision", "recall", "f1")},
            "support": int(parts[0]["support"][k]),
        }
        for k, name in enumerate(classes)
    }


def per_speaker(tables: list[pl.DataFrame], classes: tuple[str, ...], dimensions: tuple[str, ...]) -> list[dict]:
    """One row per speaker: clips, and mean over seeds of accuracy, UAR and CCC."""
    rows = []
    for speaker in sorted(tables[0]["speaker"].drop_nulls().unique()):
        parts = [scalars(t.filter(pl.col("speaker") == speaker), classes, dimensions) for t in tables]
        wanted = [n for n in ("accuracy", "uar", "macro_f1", *(f"{d}_ccc" for d in dimensions)) if n in parts[0]]
        rows.append(
            {
                "speaker": speaker,
                "clips": len(tables[0].filter(pl.col("speaker") == speaker)),
                **{n: intervals.over_seeds([p[n] for p in parts]).mean for n in wanted},
            }
        )
    return rows


def clip_scores(tables: list[pl.DataFrame], classes: tuple[str, ...], dimensions: tuple[str, ...]) -> np.ndarray:
    """(clips,) mean over seeds of correctness, or of minus the absolute error when no class is predicted.

    Clips in the order of their ids; NaN without truth.
    """
    scores = []
    for table in tables:
        table = table.sort("id", "fold")
        if classes:
            truth, predicted = (indices(table[c], classes) for c in ("truth", "predicted"))
            scores.append(np.where(truth >= 0, truth == predicted, np.nan))
        else:
            scores.append(-np.mean([np.abs(table[f"truth_{n}"].to_numpy() - table[n].to_numpy()) for n in dimensions], 0))
    return np.mean(scores, 0)


def probabilities(table: pl.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """(N, C)."""
    return table.select(f"p_{name}" for name in classes).to_numpy()
