"""What no model is worse than for long: guessing, and always saying the same."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline import metrics

from .sums import indices

#: Every class equally often; the most frequent class of the training clips, and of dimensions their mean.
CHANCE, MAJORITY = "chance", "majority"


def find_baselines(
    table: pl.DataFrame, manifest: pl.DataFrame, folds: pl.DataFrame, classes: tuple[str, ...], dimensions: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """`chance` and `majority` → metric → value, on the same test clips; metrics in which they mean nothing are left out.

    Args:
        table: predictions of one variant and seed, for truth and fold.
        manifest, folds: training clips; held-out labels are not in them or not used.
    """
    found: dict[str, dict[str, float]] = {CHANCE: {}, MAJORITY: {}}
    trained = folds.filter(pl.col("role") == "train").join(manifest, on="id").select("fold", "emotion", *dimensions)
    fold = table["fold"].to_list()
    if classes:
        truth = indices(table["truth"], classes)
        support = np.bincount(truth[truth >= 0], minlength=len(classes))
        usual = {
            key: int(np.bincount(codes[codes >= 0], minlength=len(classes)).argmax())
            for (key,), part in trained.group_by("fold")
            for codes in (indices(part["emotion"], classes),)
        }
        guessed = np.repeat(support[:, None], len(classes), 1) / len(classes)
        found[CHANCE] |= {name: float(value) for name, value in metrics.of_confusion(guessed).items()}
        constant = [usual.get(key, 0) for key in fold]
        found[MAJORITY] |= {name: float(v) for name, v in metrics.classification(truth, constant, len(classes)).items()}
    for name in dimensions:
        means = dict(trained.group_by("fold").agg(pl.col(name).cast(pl.Float64).mean()).iter_rows())
        usually = np.array([means.get(key) for key in fold], float)
        values = metrics.regression(table[f"truth_{name}"].to_numpy(), usually)
        found[MAJORITY] |= {f"{name}_{key}": value for key, value in values.items() if key in ("rmse", "sagr")}
        # Neither follows the truth within a fold; that the means of folds differ is no association.
        found[CHANCE] |= {f"{name}_ccc": 0.0, f"{name}_pcc": 0.0, "ccc": 0.0}
        found[CHANCE] |= {f"frame_{name}_ccc": 0.0, f"frame_{name}_pcc": 0.0, f"frame_{name}_ccc_per_clip": 0.0, "frame_ccc": 0.0}
    found[MAJORITY] |= {name: value for name, value in found[CHANCE].items() if name.endswith(("ccc", "pcc", "per_clip"))}
    return {
        name: {metric: round(value, 6) for metric, value in values.items() if np.isfinite(value)}
        for name, values in found.items()
    }
