"""What a model reads: padded tokens of one stream."""

from __future__ import annotations

from typing import NamedTuple

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
