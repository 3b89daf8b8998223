"""Contexts: over the turns of a dialogue, never over the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.models.batch import Fused, History
from pipeline.models.component import Component
from pipeline.params.base import Group, Whole


class ContextOptions(Group):
    """What every context knows: how many earlier turns are seen, and how many later ones (0 = causal)."""

    turns: Annotated[Whole, Field(ge=0)] = 8
    later: Annotated[Whole, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _see_something(self) -> Self:
        if not self.turns + self.later:
            raise ValueError("turns and later are both 0: no other turn is seen; say `context=none`")
        return self


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
    def forward(self, fused: Fused, history: History) -> Fused:
        """Fused clips (B, …) and the turns around R of them → fused rows (R, …), which know what was said around them."""


def gather_turns(vectors: Tensor, history: History) -> Tensor:
    """(B, W) → the turns of each row (R, K, W), zero where there is none."""
    return vectors[history.places.clamp(min=0)] * history.here[..., None]


def take_rows(fused: Fused, history: History) -> Fused:
    """The clips predicted."""
    rows = history.rows
    tokens = None if fused.tokens is None else type(fused.tokens)(*(part[rows] for part in fused.tokens))
    shares = None if fused.shares is None else fused.shares[rows]
    return Fused(fused.vector[rows], tokens, fused.parts[rows], fused.present[rows], shares)


def list_alone(present: Tensor) -> History:
    """Each of B clips (B, …) without a turn around it."""
    rows = torch.arange(len(present), device=present.device)[:, None]
    return History(rows, torch.zeros_like(rows), 0)


def measure_distance(history: History) -> Tensor:
    """(K,) how many turns before the predicted one, `at` … 0; below 0 for later ones."""
    return history.at - torch.arange(history.places.shape[1], device=history.places.device)
