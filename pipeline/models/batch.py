"""What a model reads and gives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Tokens(NamedTuple):
    """One stream of a batch.

    Attributes:
        values: (B, T, D) float32, or (B, T, L, D) when every hidden layer was kept. Padding is zero
            and never read.
        mask: (B, T) bool, true where a token is; a clip without this stream has none.
        times: (B, T, 2) float32, start and end of each token, seconds from clip start.
    """

    values: Tensor
    mask: Tensor
    times: Tensor

    @property
    def present(self) -> Tensor:
        """(B,) bool: the clip has this stream."""
        return self.mask.any(1)

    def to(self, device: object) -> Tokens:
        return Tokens(self.values.to(device), self.mask.to(device), self.times.to(device))


def shorten(values: np.ndarray, times: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` rows: adjacent rows are averaged, their times joined."""
    if len(values) <= limit:
        return values, times
    edges = np.linspace(0, len(values), limit + 1).astype(np.int64)
    counts = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    return (np.add.reduceat(values, edges[:-1], axis=0) / counts, np.stack([times[edges[:-1], 0], times[edges[1:] - 1, 1]], 1))
