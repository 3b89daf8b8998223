"""Fusion by what is present."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.params.base import Number

from .base import FusionOptions, Pointwise, embedding, layer


class Adaptive(Pointwise):
    """Per clip: one stream present → its encoding; several → their mixture; none → a learned vector.

    Trained with modality dropout, so that each of these cases is met in training.
    """

    class Options(FusionOptions):
        """Dropout is on unless said otherwise."""

        modality_dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: Options) -> None:
        super().__init__(streams, width, heads, dropout, options)
        count = len(self.streams)
        self.encode = nn.ModuleList(layer(width, width, dropout) for _ in self.streams)
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        if count > 1:
            # With two streams, several is all of them.
            self.absent = embedding(count, width) if count > 2 else None
            self.several = layer(count * width, width, dropout)

    def project(self, vectors: Tensor) -> Tensor:
        """See `Pointwise.project`."""
        return torch.stack([net(vectors[..., i, :]) for i, net in enumerate(self.encode)], -2)

    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, None]:
        """See `Pointwise.mix`."""
        encoded, here = self.project(vectors), present[..., None]  # (…, M, H), (…, M, 1)
        count = present.sum(-1, keepdim=True)  # (…, 1)
        mean = (encoded * here).sum(-2) / count.clamp(min=1)  # (…, H)
        if len(self.streams) > 1:
            known = encoded if self.absent is None else torch.where(here, encoded, self.absent)
            several = self.several(known.flatten(-2))
            mean = torch.where(count > 1, several, mean)
        return torch.where(count > 0, mean, self.nothing), None
