"""Losses that keep vectors of earlier batches to compare with."""

from __future__ import annotations

from abc import ABC
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.params.base import Flag, Group, Whole

from .base import Loss

#: Instead of -∞, whose differences are no number.
NEVER = -1e9
#: Vectors compared with all others at once: validation is one batch, and the square of it may be more than fits.
AT_ONCE = 1024


class QueueOptions(Group):
    """queue: earlier vectors that a batch is compared with besides itself (He et al. 2020); 0 = none. momentum: they are kept
    as the averaged weights (`training.ema`) make them, which change slowly, and not as the weights of their step made them.
    """

    queue: Annotated[Whole, Field(ge=0)] = 0
    momentum: Flag = False


class QueueLoss(Loss, ABC):
    """A loss with a queue: first in, first out; in evaluation it is not looked at.

    Attributes:
        queue: (Q, W) vectors of length 1, the latest first; empty before the first step. queue_truth: (Q,) or (Q, K), what
            each is told apart by.
    """

    options: QueueOptions
    queue: Tensor
    queue_truth: Tensor

    def __init__(self, on: str | None, size: int, options: Group, classes: tuple[str, ...] = ()) -> None:
        super().__init__(on, size, options, classes)
        self.register_buffer("queue", torch.zeros(0))
        self.register_buffer("queue_truth", torch.zeros(0))

    @property
    def keeps(self) -> bool:
        """See `Loss.keeps`."""
        return self.options.queue > 0

    @property
    def lags(self) -> bool:
        """See `Loss.lags`."""
        return self.keeps and self.options.momentum

    @property
    def queued(self) -> int:
        """Earlier vectors there are to compare with now."""
        return len(self.queue) if self.training else 0

    @torch.no_grad()
    def push(self, vectors: Tensor, truth: Tensor) -> None:
        """Put (n, W) vectors and their truth (n, …) in front; what is over the queue's length falls out."""
        for name, latest in (("queue", F.normalize(vectors, dim=-1)), ("queue_truth", truth)):
            before = getattr(self, name).to(latest)
            joined = torch.cat([latest, before]) if before.numel() else latest.clone()
            setattr(self, name, joined[: self.options.queue])
