"""Learning rate over steps, without state: what a resumed run computes is what an uninterrupted one does."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at `step` (from 0) of `total`: linear up over the share `warmup`, cosine to 0.

    The first step is above 0, the peak is 1, the last step is just above 0.
    """
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
