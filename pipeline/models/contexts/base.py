"""Contexts: over the turns of a dialogue, never over the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.models.batch import Fused, History
from pipeline.models.component import Component
from pipeline.params.base import Flag, Group, Whole

#: Voices told apart: one nobody knows, the clip's own, the others by recency; from the third of these on they are one.
VOICES = 5


class ContextOptions(Group):
    """What every context knows.

    turns: earlier turns that are seen. later: turns after the clip that are seen; 0 = causal.
    speakers: who speaks a turn is told, as seen from the clip: its own speaker, the last other, the one before, …
    """

    turns: Annotated[Whole, Field(ge=0)] = 8
    later: Annotated[Whole, Field(ge=0)] = 0
    speakers: Flag = False

    @model_validator(mode="after")
    def _see_something(self) -> Self:
        if not self.turns + self.later:
            raise ValueError("turns and later are both 0: no other turn is seen; say `context=none`")
        return self


class Context(Component, ABC):
    """Base: each clip is given to know of the turns around it, in a window that moves with it.

    Args:
        width: W of what is fused, in and out.
    """

    Options: ClassVar[type[ContextOptions]] = ContextOptions

    def __init__(self, width: int, heads: int, dropout: float, options: ContextOptions) -> None:
        super().__init__()
        self.options = options
        self.voices = _embed(VOICES, width) if options.speakers else None
        self.distance = _embed(options.turns + options.later + 1, width)

    def place(self, history: History) -> Tensor:
        """(R, K, W) where a turn stands as seen from the clip, and with `speakers` who speaks it; both are learned."""
        ago = history.at - torch.arange(history.places.shape[1], device=history.places.device)  # below 0 for later turns
        placed = self.distance(ago + self.options.later).expand(*history.places.shape, -1)
        return placed if self.voices is None else placed + self.voices((history.voices + 1).clamp(max=VOICES - 1))

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


def read_alone(context: Context, fused: Fused, history: History) -> Tensor:
    """(R, M, W): each stream of the clips predicted by itself, knowing what that stream was in the turns around it."""
    rows = []
    for i in range(fused.parts.shape[1]):
        one = fused._replace(vector=fused.parts[:, i], parts=fused.parts[:, i : i + 1], present=fused.present[:, i : i + 1])
        there = history.here & fused.present[history.places.clamp(min=0), i]
        there[:, history.at] = True
        rows.append(context(one, history._replace(places=torch.where(there, history.places, -1))).vector)
    return torch.stack(rows, 1)


def _embed(count: int, width: int) -> nn.Embedding:
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=0.02)
    return table
