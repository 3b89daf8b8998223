"""Correlations that truth leaves undefined, in words: of one value for all there is nothing to follow."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline import metrics

from .sums import sum_clips

WHICH = "CCC, PCC and ICC"


def tell_undefined(predictions: pl.DataFrame, traces: pl.DataFrame, dimensions: tuple[str, ...]) -> list[str]:
    """A sentence for each dimension whose truth does not vary: over clips, over all frames, or inside single clips.

    Args:
        predictions, traces: of one variant and seed; traces may be empty.
    """
    said = []
    for k, name in enumerate(dimensions):
        known = predictions[f"truth_{name}"].cast(pl.Float64).drop_nulls().drop_nans()
        if len(known) and metrics.is_constant(metrics.moments(known, known).sum(0)):
            said.append(f"{name}: {_tell_one(known[0], len(known), 'held-out clip')}: {WHICH} over clips are undefined")
        if not traces.height:
            continue
        clips = sum_clips(traces, dimensions)[1][:, k]
        there, constant = clips[:, 0] > 0, metrics.is_constant(clips)
        if not there.any():
            continue
        if metrics.is_constant(clips.sum(0)):
            first = traces[f"truth_{name}"].drop_nulls().drop_nans()[0]
            said.append(
                f"{name}: {_tell_one(first, int(clips[:, 0].sum()), 'held-out frame')}: {WHICH} over frames are undefined"
            )
        elif flat := int(np.count_nonzero(there & constant)):
            total = int(np.count_nonzero(there))
            said.append(
                f"{name}: truth does not vary in {flat} of {total} clips, which have no part in the mean of clips of {WHICH}"
            )
    return said


def _tell_one(value: float, count: int, what: str) -> str:
    return f"the truth of {count} {what}{'s' * (count != 1)} is {value:.3g} throughout"
