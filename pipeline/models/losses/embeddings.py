"""What losses on embeddings have in common: each clip beside the others of its batch, and beside earlier ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.models.batch import Outputs, Targets

from .base import mean_rows
from .memory import AT_ONCE, QueueLoss


class EmbeddingLoss(QueueLoss, ABC):
    """A loss on vectors (R, W), compared by cosine with N others: those of the batch, then those of the queue."""

    reads: ClassVar[tuple[str, ...]] = ("projection", "embedding")

    def find_truth(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """What clips are told apart by, (R,) or (R, K), and (R,) whether it is known."""
        return targets.emotion, targets.emotion >= 0

    def observe(self, targets: Targets) -> None:
        """See `Loss.observe`."""
        if not bool(self.find_truth(targets)[1].any()):
            raise ParamsError("no training clip has the labels that clips are told apart by; see `task`, or leave the term out.")

    def remember(self, outputs: Outputs, targets: Targets) -> None:
        """See `Loss.remember`."""
        if self.keeps:
            truth, known = self.find_truth(targets)
            here = known & (targets.weight > 0)
            self.push(outputs[self.on][here], truth[here])

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        vectors = F.normalize(outputs[self.on], dim=-1)
        truth, known = self.find_truth(targets)
        weight = targets.weight * known
        others, beside, there = vectors, truth, weight > 0
        if self.queued:
            others, beside = torch.cat([vectors, self.queue.to(vectors)]), torch.cat([truth, self.queue_truth.to(truth)])
            there = torch.cat([there, there.new_ones(self.queued)])
        places = torch.arange(len(others), device=truth.device)
        values, counted = [], []
        for rows in places[: len(truth)].split(AT_ONCE):
            valid = there & (rows[:, None] != places)  # a clip is not compared with itself
            value, has = self.compare(vectors[rows], others, truth[rows], beside, valid)
            values.append(value)
            counted.append(has)
        return self.average(torch.cat(values), weight * torch.cat(counted), truth)

    @abstractmethod
    def compare(self, vectors: Tensor, others: Tensor, truth: Tensor, beside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Each clip beside the others.

        Args:
            vectors: (R, W), others: (N, W), of length 1. truth: (R,) or (R, K), beside: (N,) or (N, K).
            valid: (R, N) whether the clip is compared with the other.

        Returns:
            (R,) values, and (R,) bool: there is something to compare it with.
        """

    def average(self, values: Tensor, weight: Tensor, truth: Tensor) -> Tensor:
        """(R,) values, weights and truth → scalar."""
        return mean_rows(values, weight)


def tell_apart(truth: Tensor, beside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(R, N) bool: others of the same class, and of another."""
    same = truth[:, None] == beside
    return same & valid, ~same & valid
