"""Predictions as sums per seed and group: all that a metric needs, so that drawing groups anew is adding up.

A group is what clips are drawn by: clips of one speaker resemble each other, so speakers count, not clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline import metrics

#: What clips are grouped by: the first that the corpus knows.
UNITS = ("speaker", "dialogue", "session")

#: Begins the columns of `keep_frames`.
KEPT = "frames_"

Figures = dict[str, np.ndarray]


class Part(NamedTuple):
    """Sums (seeds, groups, …) of one kind, and the metrics (…) that sums (…, ·) of this kind give."""

    sums: np.ndarray
    figures: Callable[[np.ndarray], Figures]


@dataclass(frozen=True)
class Groups:
    """The groups of the labelled test clips.

    Attributes:
        unit: one of `UNITS`, or `clip` when the corpus names none of them.
        names: sorted. place: clip → position of its group; clips without truth have none.
        alone: clips of no known unit, each a group by itself.
    """

    unit: str
    names: list[str]
    place: dict[str, int]
    alone: int

    @classmethod
    def of(cls, table: pl.DataFrame) -> Groups:
        """Groups of the rows of a prediction table that have truth."""
        truth = pl.any_horizontal(pl.col("^truth.*$").is_not_null())
        table = table.filter(truth).unique("id").sort("id")
        unit = next((name for name in UNITS if name in table.columns and table[name].drop_nulls().len()), "clip")
        known = table[unit].to_list() if unit in UNITS else [None] * len(table)
        found = [f"clip {clip}" if name is None else f"{unit} {name}" for clip, name in zip(table["id"], known, strict=True)]
        names = sorted(set(found))
        order = {name: i for i, name in enumerate(names)}
        alone = known.count(None) if unit in UNITS else 0
        return cls(unit, names, {clip: order[name] for clip, name in zip(table["id"], found, strict=True)}, alone)

    @classmethod
    def of_clips(cls, table: pl.DataFrame) -> Groups:
        """Each clip of a table a group by itself."""
        names = sorted(set(table["id"]))
        return cls("clip", names, {name: i for i, name in enumerate(names)}, 0)

    def sum(self, ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """(groups, …) sums of rows (N, …)."""
        place = np.array([self.place.get(clip, -1) for clip in ids], dtype=np.int64)
        out = np.zeros((len(self.names), *rows.shape[1:]))
        np.add.at(out, place[place >= 0], rows[place >= 0])
        return out


def indices(names: pl.Series, classes: tuple[str, ...]) -> np.ndarray:
    """Class indices, -1 for null and for names that are not classes."""
    known = {name: i for i, name in enumerate(classes)}
    return np.array([known.get(name, -1) for name in names], dtype=np.int64)


def is_scored(classes: tuple[str, ...], dimensions: tuple[str, ...]) -> pl.Expr:
    """Rows of a prediction table whose truth is among what the model predicts."""
    return pl.any_horizontal(pl.col("truth").is_in(list(classes)), *(pl.col(f"truth_{n}").is_not_null() for n in dimensions))


def clip_parts(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...], dimensions: tuple[str, ...]) -> list[Part]:
    """All metrics of clips, from one prediction table per seed (folds pooled)."""
    found = []
    if classes:
        found.append(decision_part(tables, groups, classes))
        bins = [metrics.confidence_bins(indices(t["truth"], classes), probabilities(t, classes)) for t in tables]
        sums = [groups.sum(t["id"].to_list(), rows) for t, rows in zip(tables, bins, strict=True)]
        found.append(Part(np.stack(sums), lambda summed: {"ece": metrics.ece(summed)}))
        if all("temperature" in table.columns and not table["temperature"].null_count() for table in tables):
            scaled = [metrics.temper(probabilities(t, classes), t["temperature"].to_numpy()) for t in tables]
            bins = [metrics.confidence_bins(indices(t["truth"], classes), p) for t, p in zip(tables, scaled, strict=True)]
            sums = [groups.sum(t["id"].to_list(), rows) for t, rows in zip(tables, bins, strict=True)]
            found.append(Part(np.stack(sums), lambda summed: {"ece_scaled": metrics.ece(summed)}))
    if dimensions:
        sums = [groups.sum(t["id"].to_list(), _moments(t, dimensions, "")) for t in tables]
        found.append(Part(np.stack(sums), partial(_regression, dimensions=dimensions, prefix="")))
    return found


def decision_part(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...]) -> Part:
    """What the confusion matrix says."""
    return Part(_decisions(tables, groups, classes), metrics.of_confusion)


def class_part(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...]) -> Part:
    """(…, K) precision, recall and F1; NaN for a class without truth."""

    def figures(matrix: np.ndarray) -> Figures:
        found = metrics.per_class(matrix)
        return {name: np.where(found["support"] > 0, found[name], np.nan) for name in ("precision", "recall", "f1")}

    return Part(_decisions(tables, groups, classes), figures)


def frame_parts(traces: list[pl.DataFrame], groups: Groups, dimensions: tuple[str, ...]) -> list[Part]:
    """`frame_<dimension>_<metric>` pooled over all frames, `…_per_clip` the mean of clips; a table per seed."""
    return _frame_parts([sum_clips(table, dimensions) for table in traces], groups, dimensions)


def kept_frame_parts(tables: list[pl.DataFrame], groups: Groups, dimensions: tuple[str, ...]) -> list[Part]:
    """As `frame_parts`, from prediction tables that `keep_frames` has seen; nothing from others."""
    if not dimensions or not all(have_frames(table) for table in tables):
        return []
    found = []
    for table in tables:
        mine = table.filter(pl.col(f"{KEPT}{dimensions[0]}").is_not_null())
        ids, place = np.unique(mine["id"].to_list(), return_inverse=True)
        clips = np.zeros((len(ids), len(dimensions), 9))
        np.add.at(clips, place, np.stack([np.array(mine[f"{KEPT}{name}"].to_list()) for name in dimensions], 1))
        found.append((ids.tolist(), clips))
    return _frame_parts(found, groups, dimensions)


def have_frames(table: pl.DataFrame) -> bool:
    """Whether a prediction table keeps what figures of frames are made of, of one clip at least."""
    return any(name.startswith(KEPT) and table[name].null_count() < len(table) for name in table.columns)


def keep_frames(predictions: pl.DataFrame, traces: pl.DataFrame, dimensions: tuple[str, ...]) -> pl.DataFrame:
    """The table with a column `frames_<dimension>`: the nine sums of `metrics.moments` over the annotated frames of the clip,
    all that figures of frames need of it; null where there are none. Without traces, the table as it is.

    Args:
        predictions, traces: with `variant`, `fold`, `seed` and `id`.
    """
    if not traces.height or not dimensions:
        return predictions
    keys, parts = ["variant", "fold", "seed", "id"], []
    # Moments are taken about the mean of what is pooled: the frames of one variant and seed.
    for mine in traces.partition_by("variant", "seed", maintain_order=True):
        clips = mine.select(keys).unique(maintain_order=True).with_row_index("place")
        place = mine.join(clips, on=keys, how="left", maintain_order="left")["place"].to_numpy()
        sums = np.zeros((len(clips), len(dimensions), 9))
        np.add.at(sums, place, _moments(mine, dimensions, "pred_"))
        columns = [pl.Series(f"{KEPT}{name}", sums[:, k].tolist(), pl.List(pl.Float64)) for k, name in enumerate(dimensions)]
        parts.append(clips.drop("place").with_columns(columns))
    return predictions.join(pl.concat(parts), on=keys, how="left", maintain_order="left")


def _frame_parts(sums: list[tuple[list[str], np.ndarray]], groups: Groups, dimensions: tuple[str, ...]) -> list[Part]:
    pooled, inside = [], []
    for ids, clips in sums:
        pooled.append(groups.sum(ids, clips))
        inside.append(groups.sum(ids, np.stack(list(metrics.clip_figures(clips).values()), -2)))
    names = list(metrics.of_moments(np.zeros(9)))

    def per_clip(summed: np.ndarray) -> Figures:
        means = np.asarray(metrics.ratio(summed[..., 0], summed[..., 1]))  # (…, dimensions, metrics)
        each = {(d, m): means[..., k, j] for k, d in enumerate(dimensions) for j, m in enumerate(names)}
        whole = {"frame_ccc_per_clip": means[..., names.index("ccc")].mean(-1)}
        return {f"frame_{d}_{m}_per_clip": value for (d, m), value in each.items()} | whole

    pooled_figures = partial(_regression, dimensions=dimensions, prefix="frame_")
    return [Part(np.stack(pooled), pooled_figures), Part(np.stack(inside), per_clip)]


def sum_clips(traces: pl.DataFrame, dimensions: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Clips, and their sums (clips, D, 9) of `metrics.moments`."""
    ids, place = np.unique(traces["id"].to_list(), return_inverse=True)
    clips = np.zeros((len(ids), len(dimensions), 9))
    np.add.at(clips, place, _moments(traces, dimensions, "pred_"))
    return ids.tolist(), clips


def probabilities(table: pl.DataFrame, classes: tuple[str, ...]) -> np.ndarray:
    """(N, K)."""
    return table.select(f"p_{name}" for name in classes).to_numpy()


def _decisions(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...]) -> np.ndarray:
    """(seeds, groups, K, K) confusion counts."""
    found = []
    for table in tables:
        truth, predicted = (indices(table[c], classes) for c in ("truth", "predicted"))
        rows = np.zeros((len(table), len(classes), len(classes)))
        known = np.flatnonzero(truth >= 0)
        rows[known, truth[known], predicted[known]] = 1
        found.append(groups.sum(table["id"].to_list(), rows))
    return np.stack(found)


def _moments(table: pl.DataFrame, dimensions: tuple[str, ...], side: str) -> np.ndarray:
    """(N, D, 9)."""
    pairs = [(table[f"truth_{name}"], table[f"{side}{name}"]) for name in dimensions]
    return np.stack([metrics.moments(*(c.cast(pl.Float64).to_numpy() for c in pair)) for pair in pairs], 1)


def _regression(summed: np.ndarray, dimensions: tuple[str, ...], prefix: str) -> Figures:
    """Metrics per dimension, and the mean CCC. What truth that never varies leaves undefined is NaN, and told (`undefined`)."""
    constant, found = metrics.is_constant(summed), metrics.of_moments(summed)
    found |= {name: np.where(constant, np.nan, found[name]) for name in metrics.CORRELATIONS}
    result = {f"{prefix}{name}_{key}": value[..., k] for k, name in enumerate(dimensions) for key, value in found.items()}
    return result | {f"{prefix}ccc": found["ccc"].mean(-1)}
