"""Convolutions over time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.params.base import Count, Group

from .base import Temporal


class Tcn(Temporal):
    """Residual blocks of dilated convolutions, the dilation twice that of the block before (Bai et al. 2018).

    With L layers and the kernel k a token reaches 2 (k - 1) (2^L - 1) tokens back, half of it each way where it is not causal.
    """

    class Options(Group):
        """kernel: tokens that a convolution reads at once."""

        kernel: Count = 3

    options: Options

    def build(self, place: int) -> nn.Module:
        """See `Temporal.build`."""
        return ConvolutionBlock(self.width, self.options.kernel, 2**place, self.causal, self.dropout)


class ConvolutionBlock(nn.Module):
    """x + Conv(GELU(Norm(Conv(Norm(x))))): (B, T, H) → (B, T, H); what is no token is read as zero, like what lies outside."""

    def __init__(self, width: int, kernel: int, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.room = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.first, self.second = (nn.Conv1d(width, width, kernel, dilation=dilation) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        inner = F.gelu(self.norm2(self._convolve(self.first, self.norm1(x), mask)))
        return x + self.dropout(self._convolve(self.second, inner, mask))

    def _convolve(self, network: nn.Conv1d, x: Tensor, mask: Tensor) -> Tensor:
        there = x.masked_fill(~mask[..., None], 0.0).transpose(1, 2)  # (B, H, T)
        convolved: Tensor = network(F.pad(there, self.room))
        return convolved.transpose(1, 2)
