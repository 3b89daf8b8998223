"""Contexts: over the turns of a dialogue, never over the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.models.batch import Fused
from pipeline.models.component import Component
from pipeline.params.base import Group, Whole


class ContextOptions(Group):
    """What every context knows: how many earlier turns are seen."""

    turns: Annotated[Whole, Field(ge=1)] = 8


class Context(Component, ABC):
    """Base.

    Args:
        width: W of what is fused, in and out.
    """

    Options: ClassVar[type[ContextOptions]] = ContextOptions

    def __init__(self, width: int, heads: int, dropout: float, options: ContextOptions) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, fused: Fused, history: Tensor) -> Fused:
        """Fused clips (B, …) and history (R, K), see `Inputs` → fused rows (R, …), which know what came before."""


def gather_turns(vectors: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """(B, W), (R, K) → the turns of each row (R, K, W), zero where there is none, and which there are (R, K)."""
    here = history >= 0
    return vectors[history.clamp(min=0)] * here[..., None], here


def take_rows(fused: Fused, history: Tensor) -> Fused:
    """The clips predicted: the last of each row's history."""
    rows = history[:, -1]
    tokens = None if fused.tokens is None else type(fused.tokens)(*(part[rows] for part in fused.tokens))
    shares = None if fused.shares is None else fused.shares[rows]
    return Fused(fused.vector[rows], tokens, fused.parts[rows], fused.present[rows], shares)


def number_turns(history: Tensor) -> Tensor:
    """(K,) how many turns ago, K - 1 … 0."""
    return torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
