"""Late fusion."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Pointwise


class Late(Pointwise):
    """Each stream decides by itself; the decision is the mean of the probabilities (of the values, for dimensions).

    Over time, the vectors of the streams present are averaged at each instant and one head reads them.
    """

    late: ClassVar[bool] = True

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pointwise.mix`: the mean over the streams present, each with the same share."""
        shares = present / present.sum(-1, keepdim=True).clamp(min=1)  # (…, M)
        return (vectors * shares[..., None].to(vectors.dtype)).sum(-2), shares.to(vectors.dtype)
