"""Emotion classes as learned points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models.batch import Fused, Outputs
from pipeline.params.base import Group, Positive

from .base import Head, perceptron


class Prototypes(Head):
    """(R, W) → logits (R, C), the cosine with a learned prototype of each class, divided by a temperature.

    No class is favoured by its length or by a bias (Gidaris & Komodakis 2018).
    """

    class Options(Group):
        """temperature: τ."""

        temperature: Positive = 0.1

    options: Options

    def __init__(self, name: str, width: int, size: int, dropout: float, options: Options) -> None:
        super().__init__(name, width, size, dropout, options)
        self.net = perceptron(width, width, width, dropout)
        self.prototypes = nn.Parameter(torch.randn(size, width))

    def forward(self, fused: Fused) -> Outputs:
        """See `Head.forward`."""
        near = F.normalize(self.net(fused.vector), dim=-1) @ F.normalize(self.prototypes, dim=-1).T
        return {self.name: near / float(self.options.temperature)}
