"""What losses on embeddings over time have in common: a vector of each instant of each clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import Loss
from .memory import AT_ONCE, NEVER, QueueLoss


class Instants(NamedTuple):
    """The instants of R clips.

    Attributes:
        clips: (R, P) a vector of each clip, vectors: (R, T, P) of each instant, all of length 1.
        weight: (R, T), 0 = takes no part. truth: (R, T, K), 0 where unknown. known: (R, T) bool, all K are.
        owner: (R,) int64 which clip a row is of; two rows may be of the same.
    """

    clips: Tensor
    vectors: Tensor
    weight: Tensor
    truth: Tensor
    known: Tensor
    owner: Tensor


class InstantLoss(Loss, ABC):
    """A loss on the vectors of a projection over time; an instant whose vector is zero is padding."""

    reads: ClassVar[tuple[str, ...]] = ("projection",)
    over_time: ClassVar[bool] = True

    @property
    def unlabelled(self) -> bool:
        """See `Loss.unlabelled`: neighbours in time are known of every clip."""
        return True

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Loss.forward`."""
        return self.score(self.look(outputs, targets))

    def look(self, outputs: Outputs, targets: Targets) -> Instants:
        """The instants of a batch."""
        raw = outputs[f"{self.on}.frames"].float()  # (R, T, P)
        there = (raw != 0).any(-1)
        truth = targets.frames if targets.frames is not None else raw.new_full((*raw.shape[:2], 1), torch.nan)
        # Beside longer turns of its dialogue a clip is padded further than its truth is.
        truth = F.pad(truth, (0, 0, 0, raw.shape[1] - truth.shape[1]), value=torch.nan)
        known = torch.isfinite(truth).all(-1) & there
        return Instants(
            F.normalize(outputs[self.on].float(), dim=-1),
            F.normalize(raw, dim=-1),
            targets.weight[:, None] * there,
            truth.masked_fill(~known[..., None], 0.0),
            known,
            targets.owner,
        )

    @abstractmethod
    def score(self, instants: Instants) -> Tensor:
        """A scalar; 0 with gradients of 0 when no instant takes part."""


class InstantQueueLoss(InstantLoss, QueueLoss, ABC):
    """One that compares instants with those of other clips, and with earlier ones."""

    def remember(self, outputs: Outputs, targets: Targets) -> None:
        """See `Loss.remember`."""
        if self.keeps:
            instants = self.look(outputs, targets)
            here = instants.weight > 0
            self.push(instants.vectors[here], instants.owner[:, None].expand(here.shape)[here])

    def list_others(self, instants: Instants) -> tuple[Tensor, Tensor, Tensor]:
        """What is compared with: (N, P) vectors, (N,) whose they are, and (N,) whether they take part; the queue's last."""
        others = instants.vectors.flatten(0, 1)
        owner = instants.owner[:, None].expand(instants.weight.shape).flatten()
        there = (instants.weight > 0).flatten()
        if not self.queued:
            return others, owner, there
        others = torch.cat([others, self.queue.to(others)])
        return others, torch.cat([owner, self.queue_truth.to(owner)]), torch.cat([there, there.new_ones(self.queued)])


def repel(anchors: Tensor, owner: Tensor, others: tuple[Tensor, Tensor, Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """How near the instants of other clips are to each anchor.

    Args:
        anchors: (A, P). owner: (A,). others: see `InstantQueueLoss.list_others`.

    Returns:
        (A,) log Σ_n exp(cos / τ) over the others that are not the anchor's own clip, and (A,) whether there are any.
    """
    vectors, owners, there = others
    sums, some = [], []
    for rows, whose in zip(anchors.split(AT_ONCE), owner.split(AT_ONCE), strict=True):
        negative = there & (whose[:, None] != owners)
        sums.append((rows @ vectors.T / temperature).masked_fill(~negative, NEVER).logsumexp(1))
        some.append(negative.any(1))
    return torch.cat(sums), torch.cat(some)


def step_apart(instants: Instants) -> Tensor:
    """(R, T-1) the Euclidean distance of each instant's truth to the next one's; 0 where either is unknown."""
    apart = (instants.truth[:, 1:] - instants.truth[:, :-1]).square().sum(-1).sqrt()
    return apart * (instants.known[:, 1:] & instants.known[:, :-1])


def pair_weight(instants: Instants) -> Tensor:
    """(R, T-1) weight of each instant and the next; 0 where either is not there."""
    return torch.minimum(instants.weight[:, 1:], instants.weight[:, :-1])
