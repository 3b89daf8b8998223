"""Early fusion."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.params.base import Flag

from .base import FusionOptions, Pointwise


class Early(Pointwise):
    """One linear layer on all streams side by side: y = Dropout(GELU(LayerNorm(Σ Wₘ vₘ + b))); an absent stream adds nothing.

    Where the stream encoders are linear, nothing is learned of a stream before it meets the others.
    """

    class Options(FusionOptions):
        """project: with matrices Wₘ; without, the vectors are summed as the stream encoders give them."""

        project: Flag = True

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        self.joint = nn.Linear(len(self.streams) * width, width) if options.project else None
        self.out = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `Pointwise.mix`."""
        known = vectors * present[..., None]
        return self.out(known.sum(-2) if self.joint is None else self.joint(known.flatten(-2))), None
