"""What each stream is worth to the fused model: Shapley values of the recalls (Shapley 1953), over the sets of streams kept.

A stream's value is the mean, over all orders in which streams may be given to the model, of what the recall gains when it is
added. The values of all streams add up to the recall with all of them less that with none.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from pipeline import metrics
from pipeline.runs.answers import MOST_STREAMS

from . import intervals
from .intervals import Draws
from .sums import Figures, Groups, Part, indices


def attribute(kept: pl.DataFrame, groups: Groups, classes: tuple[str, ...], draws: Draws | None) -> dict[str, object]:
    """What is said of the streams' worth, for `trust.json`.

    Args:
        kept: predictions of the fused model with `truth` and `kept`, the streams it was left with ("audio+text"; "" = none).

    Returns:
        `reason` why there is nothing; else `streams`, `none` and `full` (UAR), `uar` (stream → interval) and `recall`
        (stream → class → interval).
    """
    names = sorted({name for label in kept["kept"].unique() for name in label.split("+") if name}) if kept.height else []
    if not classes:
        return {"reason": "The model predicts no classes."}
    if len(names) < 2:
        return {"reason": "With one stream there is nothing to share out."}
    if len(names) > MOST_STREAMS:
        return {"reason": f"With {len(names)} streams there are {2 ** len(names)} sets to predict; up to {MOST_STREAMS} are."}
    part = Part(_counts(kept, names, groups, classes), lambda counts: _figures(counts, share_out(len(names))))
    found = {name: [one.rounded() for one in values] for name, values in intervals.estimate_each([part], draws).items()}
    recall = iter(found["recall"])
    return {
        "streams": names,
        "none": found["none"][0],
        "full": found["full"][0],
        "uar": dict(zip(names, found["uar"], strict=True)),
        "recall": {name: {label: next(recall) for label in classes} for name in names},
    }


def share_out(streams: int) -> np.ndarray:
    """(M, 2^M) weights: the Shapley values are weights @ worth of each set; bit m of a set's number says that it has stream m.

    >>> share_out(2).tolist()
    [[-0.5, 0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, 0.5]]
    """
    weights = np.zeros((streams, 2**streams))
    for stream in range(streams):
        for number in range(2**streams):
            before = (number & ~(1 << stream)).bit_count()
            chance = math.factorial(before) * math.factorial(streams - before - 1) / math.factorial(streams)
            weights[stream, number] = chance if number >> stream & 1 else -chance
    return weights


def _counts(kept: pl.DataFrame, names: list[str], groups: Groups, classes: tuple[str, ...]) -> np.ndarray:
    """(seeds, groups, sets, C, 2) of each class: clips that are right, and clips."""
    label = {"+".join(sorted(n for m, n in enumerate(names) if s >> m & 1)): s for s in range(2 ** len(names))}
    found = []
    for table in kept.partition_by("seed", maintain_order=True):
        table = table.filter(pl.col("truth").is_in(list(classes)))
        truth, place = indices(table["truth"], classes), np.array([label[name] for name in table["kept"]])
        right = truth == indices(table["predicted"], classes)
        rows = np.zeros((len(table), 2 ** len(names), len(classes), 2))
        rows[np.arange(len(table)), place, truth] = np.stack([right, np.ones(len(table))], 1)
        found.append(groups.sum(table["id"].to_list(), rows))
    return np.stack(found)


def _figures(counts: np.ndarray, weights: np.ndarray) -> Figures:
    recall = metrics.ratio(counts[..., 0], counts[..., 1])  # (…, sets, C)
    known = np.isfinite(recall)
    uar = metrics.ratio(np.where(known, recall, 0).sum(-1), known.sum(-1))  # (…, sets)
    each = np.einsum("ms,...sc->...mc", weights, recall)
    return {
        "none": uar[..., :1],
        "full": uar[..., -1:],
        "uar": uar @ weights.T,
        "recall": each.reshape(*each.shape[:-2], -1),
    }
