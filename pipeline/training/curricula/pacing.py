"""Pacing: which share of the clips is seen at an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Pace = Literal["linear", "sqrt", "log"]

#: (epoch from 0, epochs of the curriculum) → share before it is clamped to [0, 1].
PACES: dict[Pace, Callable[[int, int], float]] = {
    "linear": lambda epoch, epochs: (epoch + 1) / epochs,
    "sqrt": lambda epoch, epochs: math.sqrt((epoch + 1) / epochs),
    "log": lambda epoch, epochs: math.log(epoch + 2) / math.log(epochs + 1),
}


def share_seen(pace: Pace, epoch: int, epochs: int) -> float:
    """Share of the clips seen at `epoch`; 1 from the last epoch of the curriculum on.

    >>> [round(share_seen("sqrt", epoch, 15), 3) for epoch in (0, 7, 14, 20)]
    [0.258, 0.73, 1.0, 1.0]
    """
    return 1.0 if epoch >= epochs - 1 else min(1.0, PACES[pace](epoch, epochs))
