"""A layer that must not see padding."""

from __future__ import annotations

import torch


class Unpadded(torch.nn.Module):
    """Runs `inner` on each clip of a padded batch at its true length; what lies after the clip is zero.

    For layers that keep the shape and look along the whole of `axis` (a GroupNorm over time, stacked
    convolutions), where no attention mask reaches. The result equals that of each clip alone.

    Attributes:
        lengths: true length of each clip along `axis`; None when nothing is padded.
    """

    def __init__(self, inner: torch.nn.Module, axis: int) -> None:
        super().__init__()
        self.inner, self.axis = inner, axis
        self.lengths: list[int] | None = None

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if self.lengths is None:
            return self.inner(batch)
        result = torch.zeros_like(batch)
        for i, length in enumerate(self.lengths):
            clip = self.inner(batch[i : i + 1].narrow(self.axis, 0, length))
            result[i : i + 1].narrow(self.axis, 0, length).copy_(clip)
        return result
