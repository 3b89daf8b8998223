"""A recurrent network over turns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.batch import Fused, History

from .base import Context, ContextOptions, gather_turns, take_rows


class Gru(Context):
    """A gated recurrent unit reads the turns up to the clip, with `later` another one those after it, last first."""

    def __init__(self, width: int, heads: int, dropout: float, options: ContextOptions) -> None:
        super().__init__(width, heads, dropout, options)
        self.norm = nn.LayerNorm(width)
        self.forwards = nn.GRU(width, width, batch_first=True) if options.turns else None
        self.backwards = nn.GRU(width, width, batch_first=True) if options.later else None
        self.out = nn.Linear(width * (bool(options.turns) + bool(options.later)), width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, fused: Fused, history: History) -> Fused:
        """See `Context.forward`."""
        turns = self.norm(gather_turns(fused.vector, history) + self.place(history))  # (R, K, W)
        here, at = history.here, history.at
        read = []
        if self.forwards is not None:
            read.append(_read_on(self.forwards, turns[:, : at + 1], here[:, : at + 1]))
        if self.backwards is not None:
            read.append(_read_on(self.backwards, turns[:, at:].flip(1), here[:, at:].flip(1)))
        rows = take_rows(fused, history)
        return rows._replace(vector=rows.vector + self.dropout(self.out(torch.cat(read, -1))))


def _read_on(network: nn.GRU, turns: Tensor, here: Tensor) -> Tensor:
    """(R, K, W) → (R, W), the state after the last turn there is; those that are not are passed over."""
    place = torch.arange(here.shape[1], device=here.device)
    order = torch.where(here, place, here.shape[1] + place).argsort(dim=1)  # those there are first, in their order
    states, _ = network(turns.gather(1, order[..., None].expand_as(turns)))
    last = here.sum(1) - 1  # what is read after them changes no state before
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
