"""Which frames of a clip are taken."""

from __future__ import annotations

import numpy as np

#: Frame times are rounded by the container's clock; this much early still counts as on time.
TOLERANCE = 1e-3


def grid(duration: float, fps: float, max_frames: int) -> np.ndarray:
    """(T,) seconds at which to sample: the middle of `fps` equal slots per second, at most `max_frames`.

    A longer clip is sampled more sparsely over its whole length, never cut. At least one sample.
    """
    count = int(np.clip(round(duration * fps), 1, max_frames))
    return (np.arange(count) + 0.5) * duration / count


def pick(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(T,) index of the frame on screen at each wanted time: the last one that began before it.

    Args:
        times: (F,) presentation times, rising. Correct under variable frame rate by construction.
    """
    return np.clip(np.searchsorted(times, wanted + TOLERANCE, side="right") - 1, 0, len(times) - 1)
