"""What losses on embeddings over time have in common: a vector of each instant of each clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.batch import Outputs, Targets

from .base import Loss
from .memory import AT_ONCE, NEVER, QueueLoss

#: Anchors whose products with a queue of thousands stay in a processor's cache.
IN_CACHE = 64


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


class Others(NamedTuple):
    """Instants compared with: (N, P) vectors, (N,) whose they are, (N,) bool whether they take part, and whether they learn."""

    vectors: Tensor
    owner: Tensor
    there: Tensor
    learn: bool


class InstantQueueLoss(InstantLoss, QueueLoss, ABC):
    """One that compares instants with those of other clips, and with earlier ones."""

    def remember(self, outputs: Outputs, targets: Targets) -> None:
        """See `Loss.remember`."""
        if self.keeps:
            instants = self.look(outputs, targets)
            here = instants.weight > 0
            self.push(instants.vectors[here], instants.owner[:, None].expand(here.shape)[here])

    def list_others(self, instants: Instants) -> list[Others]:
        """What is compared with: the instants of the batch, and the queue where there is one."""
        vectors, owner = instants.vectors.flatten(0, 1), instants.owner[:, None].expand(instants.weight.shape).flatten()
        found = [Others(vectors, owner, (instants.weight > 0).flatten(), True)]
        if self.queued:
            owner = self.queue_truth.to(owner)
            found.append(Others(self.queue.to(vectors), owner, torch.ones_like(owner, dtype=torch.bool), False))
        return found


def repel(anchors: Tensor, owner: Tensor, others: Sequence[Others], temperature: float) -> tuple[Tensor, Tensor]:
    """How near the instants of other clips are to each anchor.

    Args:
        anchors: (R, T, P). owner: (R,).

    Returns:
        (R, T) log Σ_n exp(cos / τ) over the others that are not of the anchors' own clip, and (R,) whether there are any.
    """
    scaled, sums, some = anchors / temperature, [], []
    for vectors, owners, there, learn in others:
        negative = there & (owner[:, None] != owners)  # (R, N): of a clip's anchors all are held against the same
        bias = torch.where(negative, 0.0, NEVER)
        plain = learn or not torch.is_grad_enabled()
        sums.append(add_up(scaled, vectors, bias) if plain else _AddUp.apply(scaled, vectors, bias)[0])
        some.append(negative.any(1))
    return torch.stack(sums).logsumexp(0), torch.stack(some).any(0)


def add_up(anchors: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
    """(R, T, P), (N, P), (R, N) → (R, T) log Σ_n exp(anchor · vector + bias)."""
    # In place, and by adding: a copy of (r, T, N) costs as much as the product itself.
    near = [(r @ vectors.T).add_(b[:, None]).logsumexp(-1) for r, b in _pieces(anchors, bias, AT_ONCE)]
    return torch.cat(near)


class _AddUp(torch.autograd.Function):
    """`add_up` with vectors that learn nothing: the slope of each anchor is their mean, weighted as they weigh in its sum, and is
    taken while the products are at hand. Nothing as large as they are is kept or made again on the way back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(anchors: Tensor, vectors: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(R, T) sums, (R, T, P) slopes."""
        sums, slopes, across = [], [], vectors.T.contiguous()
        for r, b in _pieces(anchors, bias, IN_CACHE):
            near = (r @ across).add_(b[:, None])
            most = near.amax(-1, keepdim=True)
            shares = near.sub_(most).exp_()
            whole = shares.sum(-1, keepdim=True)
            sums.append((most + whole.log()).squeeze(-1))
            slopes.append((shares @ vectors) / whole)
        return torch.cat(sums), torch.cat(slopes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the slopes."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        """See the class."""
        (slopes,) = ctx.saved_tensors
        return grad[..., None] * slopes, None, None


def _pieces(anchors: Tensor, bias: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A few clips at a time, about so many anchors, with their bias."""
    clips = max(1, rows // max(1, anchors.shape[1]))
    return zip(anchors.split(clips), bias.split(clips), strict=True)


def repel_within(anchors: Tensor, instants: Instants, apart: int, temperature: float) -> tuple[Tensor, Tensor]:
    """How near the instants of its own clip, `apart` steps away or more, are to each anchor.

    Args:
        anchors: (R, S, P), of the first S instants.

    Returns:
        (R, S) log Σ_n exp(cos / τ), and whether there are any.
    """
    steps = torch.arange(instants.vectors.shape[1], device=anchors.device)
    far = (steps[: anchors.shape[1], None] - steps).abs() >= apart
    negative = far & (instants.weight > 0)[:, None]  # (R, S, T)
    bias = torch.where(negative, 0.0, NEVER)
    near = torch.baddbmm(bias, anchors / temperature, instants.vectors.transpose(1, 2))
    return near.logsumexp(-1), negative.any(-1)


def step_apart(instants: Instants) -> Tensor:
    """(R, T-1) the Euclidean distance of each instant's truth to the next one's; 0 where either is unknown."""
    apart = (instants.truth[:, 1:] - instants.truth[:, :-1]).square().sum(-1).sqrt()
    return apart * (instants.known[:, 1:] & instants.known[:, :-1])


def pair_weight(instants: Instants) -> Tensor:
    """(R, T-1) weight of each instant and the next; 0 where either is not there."""
    return torch.minimum(instants.weight[:, 1:], instants.weight[:, :-1])
