"""What is left of a stream's tokens when one vector is made of them, beside the mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .batch import Tokens

#: Of a variance; below, a deviation is zero, and so is its gradient.
TINY = 1e-8


class Readout(nn.Module):
    """Mean and deviation over a clip's tokens, brought back to their width; with `attentive`, weighted by what they hold.

    Attentive statistics (Okabe et al. 2018): a token's weight is the softmax over time of vᵀ tanh(W h + b). A constant beside
    it would move no weight.

    Args:
        width: H of the tokens, and of what goes out.
    """

    def __init__(self, width: int, attentive: bool) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False)) if attentive else None
        self.out = nn.Linear(2 * width, width)

    def weigh(self, tokens: Tokens) -> Tensor:
        """(B, T), summing to one over the tokens there are; zero where a clip has none."""
        mask = tokens.mask
        if self.score is None:
            return mask / mask.sum(1, keepdim=True).clamp(min=1)
        scores = self.score(tokens.values)[..., 0]
        return scores.masked_fill(~mask & mask.any(1, keepdim=True), float("-inf")).softmax(1) * mask

    def summarise(self, tokens: Tokens) -> Tensor:
        """(B, T, H) → (B, 2 H), mean and deviation; zero where a clip has no token."""
        values, weight = tokens.values.masked_fill(~tokens.mask[..., None], 0), self.weigh(tokens)[..., None]
        mean = (values * weight).sum(1)
        variance = ((values - mean[:, None]).square() * weight).sum(1)
        # The slope of a root at zero is infinite, and times zero no number: one token has no deviation.
        some = variance > TINY
        deviation = torch.where(some, torch.where(some, variance, 1.0).sqrt(), 0.0)
        return torch.cat([mean, deviation], 1)

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, T, H) → (B, H); zero where a clip has no token."""
        return self.out(self.summarise(tokens)) * tokens.present[:, None]
