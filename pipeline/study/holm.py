"""Several tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def correct(values: Sequence[float]) -> list[float]:
    """p values corrected by Holm's step-down method (1979), in the order given; NaN stays NaN and does not count.

    Of m values in ascending order, the k-th (from 0) times m - k, never less than the one before it, at most 1.

    >>> correct([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((value, place) for place, value in enumerate(values) if math.isfinite(value))
    result, highest = [math.nan] * len(values), 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        result[place] = highest
    return result
