"""Fusion: tokens of several streams become one vector per clip, whatever is missing.

Every module reads `tokens[name]` (B, T, H) and `masks[name]` (B, T) and returns (B, H). A stream a clip
lacks has an all-false mask; it takes no part (attention, gates) or is stood in for by a learned
embedding (concatenation). Nothing mixes samples of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError, one_of

from .stream import Attention, feed_forward

Streams = dict[str, Tensor]


def pooled(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over a clip's tokens: (B, T, H), (B, T) → (B, H); zero when there is none."""
    return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def layer(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU(), nn.Dropout(dropout))


def keep_one(present: Tensor, share: float) -> Tensor:
    """Modality dropout: (B, M) presence → presence with each stream dropped with probability `share`.

    A sample that has any stream keeps at least one.
    """
    draw = torch.rand(present.shape, device=present.device)
    kept = present & (draw >= share)
    last = torch.where(present, draw, -1.0).argmax(1)
    spared = torch.nn.functional.one_hot(last, present.shape[1]).bool() & present
    return torch.where(kept.any(1, keepdim=True), kept, spared)


class FusionModule(nn.Module, ABC):
    """Base: modality dropout while training, then `fuse`.

    Args:
        streams: names, in a fixed order.
        width: H.
        options: those of `OPTIONS` that differ from the default.

    Raises:
        ParamsError: an option the module does not have.
    """

    #: Option → default.
    OPTIONS: dict[str, object] = {"modality_dropout": 0.0}

    def __init__(self, streams: Sequence[str], width: int, heads: int, dropout: float, options: dict) -> None:
        super().__init__()
        for name in options:
            if name not in self.OPTIONS:
                raise one_of("parameter fusion.options", name, self.OPTIONS)
        self.streams, self.width = tuple(streams), width
        self.options = {**self.OPTIONS, **options}
        share = self.options["modality_dropout"]
        if not isinstance(share, (int, float)) or not 0 <= share < 1:
            raise ParamsError(f"fusion.options.modality_dropout is {share!r}; give a share from 0 to below 1.")
        self.build(heads, dropout)

    @abstractmethod
    def build(self, heads: int, dropout: float) -> None:
        """Make the layers."""

    @abstractmethod
    def fuse(self, tokens: Streams, masks: Streams) -> Tensor:
        """(B, H)."""

    def forward(self, tokens: Streams, masks: Streams) -> Tensor:
        share = float(self.options["modality_dropout"])
        if self.training and share and len(self.streams) > 1:
            present = torch.stack([masks[name].any(1) for name in self.streams], 1)
            kept = keep_one(present, share)
            masks = {name: masks[name] & kept[:, i, None] for i, name in enumerate(self.streams)}
        return self.fuse(tokens, masks)

    def vectors(self, tokens: Streams, masks: Streams) -> tuple[Tensor, Tensor]:
        """Mean-pooled streams (B, M, H), the absent ones replaced by `self.absent`; presence (B, M)."""
        present = torch.stack([masks[name].any(1) for name in self.streams], 1)
        means = torch.stack([pooled(tokens[name], masks[name]) for name in self.streams], 1)
        return torch.where(present[..., None], means, self.absent), present


class Concat(FusionModule):
    """Pooled streams side by side through a two-layer perceptron."""

    def build(self, heads: int, dropout: float) -> None:
        self.absent = nn.Parameter(torch.randn(len(self.streams), self.width) * 0.02)
        self.mix = nn.Sequential(
            layer(len(self.streams) * self.width, 2 * self.width, dropout), layer(2 * self.width, self.width, dropout)
        )

    def fuse(self, tokens: Streams, masks: Streams) -> Tensor:
        return self.mix(self.vectors(tokens, masks)[0].flatten(1))


class Gated(FusionModule):
    """Softmax gates over the streams present, one per stream or one per stream and dimension."""

    OPTIONS = {"modality_dropout": 0.0, "per_dimension": True}

    def build(self, heads: int, dropout: float) -> None:
        streams = len(self.streams)
        self.gates = self.width if self.options["per_dimension"] else 1
        self.absent = nn.Parameter(torch.randn(streams, self.width) * 0.02)
        self.project = nn.ModuleList(nn.Linear(self.width, self.width) for _ in self.streams)
        # The last bias moves all gates of a lone stream alike; two streams or more give it a gradient.
        self.gate = (
            nn.Sequential(nn.Linear(streams * self.width, self.width), nn.ReLU(), nn.Linear(self.width, streams * self.gates))
            if streams > 1
            else None
        )
        self.norm, self.dropout = nn.LayerNorm(self.width), nn.Dropout(dropout)

    def weights(self, vectors: Tensor, present: Tensor) -> Tensor:
        """(B, M, 1 or H), summing to one over the streams present, zero for the others."""
        if self.gate is None:
            return present[..., None].to(vectors.dtype)
        logits = self.gate(vectors.flatten(1)).unflatten(1, (len(self.streams), self.gates))
        some = present.any(1)[:, None, None]
        logits = logits.masked_fill(~present[..., None] & some, float("-inf"))
        return logits.softmax(1) * present[..., None]

    def fuse(self, tokens: Streams, masks: Streams) -> Tensor:
        vectors, present = self.vectors(tokens, masks)
        projected = torch.stack([net(vectors[:, i]) for i, net in enumerate(self.project)], 1)
        return self.dropout(self.norm((self.weights(vectors, present) * projected).sum(1)))


class CrossLayer(nn.Module):
    """Tokens of one stream look at all tokens of the others."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.forward_ = feed_forward(width, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        # Nothing to look at: the token goes through unchanged by attention.
        seen = self.attention(x, context, mask) * mask.any(1)[:, None, None]
        x = self.norm1(x + seen)
        return self.norm2(x + self.forward_(x))


class CrossAttention(FusionModule):
    """Token-level attention across streams, both ways, then pooling and a projection.

    With one stream it attends to itself. Attending over pooled vectors (one key) would make the
    softmax 1 and the query void, therefore tokens.
    """

    OPTIONS = {"modality_dropout": 0.0, "layers": 1}

    def build(self, heads: int, dropout: float) -> None:
        depth = self.options["layers"]
        if not isinstance(depth, int) or depth < 1:
            raise ParamsError(f"fusion.options.layers is {depth!r}; give a whole number from 1.")
        streams = len(self.streams)
        self.absent = nn.Parameter(torch.randn(streams, self.width) * 0.02)
        self.kind = nn.Parameter(torch.randn(streams, self.width) * 0.02)
        self.layers = nn.ModuleList(
            nn.ModuleList(CrossLayer(self.width, heads, dropout) for _ in self.streams) for _ in range(depth)
        )
        self.mix = layer(streams * self.width, self.width, dropout)

    def fuse(self, tokens: Streams, masks: Streams) -> Tensor:
        states = [tokens[name] + self.kind[i] for i, name in enumerate(self.streams)]
        held = [masks[name] for name in self.streams]
        for cross in self.layers:
            states = [module(states[i], *self._others(states, held, i)) for i, module in enumerate(cross)]
        vectors, _ = self.vectors(dict(zip(self.streams, states, strict=True)), masks)
        return self.mix(vectors.flatten(1))

    @staticmethod
    def _others(states: list[Tensor], masks: list[Tensor], i: int) -> tuple[Tensor, Tensor]:
        others = [j for j in range(len(states)) if j != i] or [i]
        return torch.cat([states[j] for j in others], 1), torch.cat([masks[j] for j in others], 1)


class Adaptive(FusionModule):
    """Per sample: one stream present → its encoding; several → their mixture; none → a learned vector.

    Trained with modality dropout, so that each of these cases is met in training.
    """

    OPTIONS = {"modality_dropout": 0.2}

    def build(self, heads: int, dropout: float) -> None:
        streams = len(self.streams)
        self.encode = nn.ModuleList(layer(self.width, self.width, dropout) for _ in self.streams)
        self.nothing = nn.Parameter(torch.randn(self.width) * 0.02)
        if streams > 1:
            self.absent = nn.Parameter(torch.randn(streams, self.width) * 0.02)
            self.mix = layer(streams * self.width, self.width, dropout)

    def fuse(self, tokens: Streams, masks: Streams) -> Tensor:
        present = torch.stack([masks[name].any(1) for name in self.streams], 1)
        encoded = torch.stack(
            [net(pooled(tokens[name], masks[name])) for name, net in zip(self.streams, self.encode, strict=True)], 1
        )
        count = present.sum(1, keepdim=True)
        mean = (encoded * present[..., None]).sum(1) / count.clamp(min=1)
        if len(self.streams) > 1:
            several = self.mix(torch.where(present[..., None], encoded, self.absent).flatten(1))
            mean = torch.where(count > 1, mean + several, mean)
        return torch.where(count > 0, mean, self.nothing)


#: `fusion.name` → module.
FUSIONS: dict[str, type[FusionModule]] = {
    "concat": Concat,
    "gated": Gated,
    "cross_attention": CrossAttention,
    "adaptive": Adaptive,
}


def build(name: str, streams: Sequence[str], width: int, heads: int, dropout: float, options: dict) -> FusionModule:
    """The fusion module of that name.

    Raises:
        ParamsError: unknown name or option.
    """
    if name not in FUSIONS:
        raise one_of("fusion", name, FUSIONS)
    return FUSIONS[name](streams, width, heads, dropout, options)
