"""A stack of layers of chosen widths."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Count, Flag, Group, Share

from .base import Head


class FeedForward(Head):
    """(R, W) → (R, size): of each width a layer Linear → ReLU → Dropout, then with `l2` the length taken away, and Linear.

    Class scores are logits; dimensions come out in (-1, 1).

    Raises:
        ParamsError: what is predicted over time, which this does not read.
    """

    class Options(Group):
        """widths: of the layers. dropout: after each; null = `temporal.dropout`. l2: the last layer's vector has length one."""

        widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (256, 128)
        dropout: Share | None = None
        l2: Flag = False

    options: Options

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Options) -> None:
        super().__init__(name, width, size, dropout, options)
        if name == "frames":
            raise ParamsError("heads.frames: feed_forward reads a clip as a whole; take the head `frames`.")
        share = dropout if options.dropout is None else float(options.dropout)
        steps = zip((width, *options.widths), options.widths, strict=False)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(share)) for a, b in steps)
        self.out = nn.Linear(options.widths[-1], size)

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        vector = fused.vector
        for layer in self.layers:
            vector = layer(vector)
        if self.options.l2:
            vector = nn.functional.normalize(vector, dim=-1)
        found = self.out(vector)
        return {self.name: found.tanh() if self.name == "dimensions" else found}
