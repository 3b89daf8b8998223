"""Recurrence over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Temporal


class Gru(Temporal):
    """Residual layers of gated recurrent units (Cho et al. 2014); one that is not causal reads both ways."""

    def build(self, place: int) -> nn.Module:
        """See `Temporal.build`."""
        return RecurrentBlock(self.width, self.causal, self.dropout)


class RecurrentBlock(nn.Module):
    """x + Linear(states of units that read Norm(x)): (B, T, H) → (B, T, H)."""

    def __init__(self, width: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.forwards = nn.GRU(width, width, batch_first=True)
        self.backwards = None if causal else nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width if causal else 2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(x)
        read = [_read_on(self.forwards, normed, mask, 1)]
        if self.backwards is not None:
            read.append(_read_on(self.backwards, normed, mask, -1))
        return x + self.dropout(self.out(torch.cat(read, -1)))


def _read_on(network: nn.GRU, x: Tensor, mask: Tensor, step: int) -> Tensor:
    """(B, T, H) → (B, T, H), the state after each token, read forwards (1) or backwards (-1); what is no token is read last."""
    length = x.shape[1]
    place = torch.arange(length, device=x.device)
    order = torch.where(mask, step * place, length + place).argsort(dim=1)  # (B, T)
    states, _ = network(x.gather(1, order[..., None].expand_as(x)))
    return torch.empty_like(states).scatter_(1, order[..., None].expand_as(states), states)
