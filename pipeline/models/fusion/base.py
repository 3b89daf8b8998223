"""Fusion: tokens of several streams become one vector per clip and one per instant, whatever is missing.

A stream a clip lacks has an all-false mask; it takes no part (attention, gates) or is stood in for by a learned
embedding (concatenation). Nothing mixes clips of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Fused, Text, Tokens
from pipeline.models.component import Component
from pipeline.models.readout import Readout
from pipeline.params.base import Flag, Group, Number

Streams = Mapping[str, Tokens]


class FusionOptions(Group):
    """What every fusion knows.

    modality_dropout: each stream is dropped with this probability in training, one is always kept.
    l2: the vector of each stream is scaled to length one before it is fused.
    """

    modality_dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    l2: Flag = False


class Fusion(Component, ABC):
    """Base.

    Args:
        streams: name → width of the stream as its encoder gave it (one of its own perceptron: H), in a fixed order.
        width: H of the tokens that come in. heads: attention heads. dropout: probability.

    Attributes:
        width: W of what goes out; heads are built from it.
        late: the decision is the mean of each stream's own (`Fused.parts` has a head per stream).
        holds_language: it is built with the layers of a language model (`ModelSpec.language`), and reads that one's states.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions
    late: ClassVar[bool] = False
    holds_language: ClassVar[bool] = False

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: FusionOptions) -> None:
        super().__init__()
        self.streams, self.width, self.options = tuple(streams), width, options

    def choose_readout(self, name: str) -> None:
        """Make the vector of a stream from its tokens in this way: `mean`, `statistics` or `attentive`.

        Raises:
            ParamsError: this fusion makes none.
        """
        if name != "mean":
            kind = type(self).__name__
            raise ParamsError(f"temporal.readout is {name!r}, and fusion {kind} does not pool tokens; set it to mean.")

    def look_back(self) -> None:
        """Have nothing that begins after an instant take part in it.

        Raises:
            ParamsError: this fusion looks at all of a clip.
        """
        raise ParamsError(
            f"temporal.causal is true, and fusion {type(self).__name__} looks at all of a clip; take concat or gated."
        )

    @abstractmethod
    def forward(self, streams: Streams, base: str | None = None, text: Text | None = None) -> Fused:
        """Fuse.

        Args:
            streams: encoded tokens (B, T, H) by name.
            base: the stream at whose instants `Fused.tokens` stand; None = none are wanted.
            text: ids of what is said, for fusions that hold a language model.
        """

    def drop(self, streams: Streams) -> Streams:
        """Modality dropout, while training."""
        share = float(self.options.modality_dropout)
        if not self.training or not share or len(self.streams) < 2:
            return streams
        kept = keep_one(torch.stack([streams[name].present for name in self.streams], 1), share)
        return {n: streams[n]._replace(mask=streams[n].mask & kept[:, i, None]) for i, n in enumerate(self.streams)}


class Pointwise(Fusion):
    """A fusion of one vector per stream, used on the means of a clip and again on each instant of the base stream.

    So that a quarter of a second of sound moves the instants it overlaps, and clip and instant share their weights. W is H.

    Attributes:
        readouts: by stream, what makes one vector of its tokens; the mean where there is none.
    """

    def __init__(self, streams: Mapping[str, int], width: int, heads: int, dropout: float, options: FusionOptions) -> None:
        super().__init__(streams, width, heads, dropout, options)
        self.readouts = nn.ModuleDict()
        self.causal = False

    @abstractmethod
    def mix(self, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor | None]:
        """(…, M, H) and (…, M) bool → (…, W), and shares (…, M) or None. Vectors of absent streams are zero."""

    def choose_readout(self, name: str) -> None:
        """See `Fusion.choose_readout`."""
        if name != "mean":
            self.readouts.update({stream: Readout(self.width, name == "attentive") for stream in self.streams})

    def look_back(self) -> None:
        """See `Fusion.look_back`."""
        if type(self).relate is not Pointwise.relate:
            super().look_back()
        self.causal = True

    def read(self, name: str, tokens: Tokens) -> Tensor:
        """The tokens of a stream as one vector of each clip, (B, T, H) → (B, H): their mean, or what `readouts` says."""
        return self.readouts[name](tokens) if name in self.readouts else mean_tokens(tokens)

    def scale(self, vectors: Tensor) -> Tensor:
        """(…, H), with `l2` of length one; zero stays zero."""
        return nn.functional.normalize(vectors, dim=-1) if self.options.l2 else vectors

    def relate(self, streams: Streams) -> Streams:
        """What is done with the tokens before they are pooled: nothing."""
        return streams

    def project(self, vectors: Tensor) -> Tensor:
        """(…, M, H) → (…, M, W), each stream alone: as it is."""
        return vectors

    def forward(self, streams: Streams, base: str | None = None, text: Text | None = None) -> Fused:
        """See `Fusion.forward`."""
        kept = self.relate(self.drop(streams))
        present = torch.stack([kept[name].present for name in self.streams], 1)  # (B, M)
        vectors = self.scale(torch.stack([self.read(name, kept[name]) for name in self.streams], 1))  # (B, M, H)
        vector, shares = self.mix(vectors, present)  # (B, W), (B, M)
        tokens = None
        if base is not None:
            # The instants are those of the base stream even where dropout took its content away.
            instants = streams[base]
            aligned = torch.stack([align(kept[name], instants, self.causal) for name in self.streams], 2)  # (B, T, M, H)
            mixed, _ = self.mix(self.scale(aligned), present[:, None].expand(aligned.shape[:-1]))  # (B, T, W)
            # Beside what is mixed, the base stream's own token: the mixture need not carry it through (measured: concat loses
            # two points of UAR on the demo without this, 20 seeds).
            own = kept[base].values * kept[base].mask[..., None]
            tokens = instants._replace(values=(mixed + own) * instants.mask[..., None])
        return Fused(vector, tokens, self.project(vectors), present, shares)


def mean_tokens(tokens: Tokens) -> Tensor:
    """Mean over a clip's tokens: (B, T, H) → (B, H); zero when there is none.

    >>> values, mask = torch.tensor([[[2.0], [6.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> mean_tokens(Tokens(values, mask, torch.zeros(1, 3, 2))).tolist()
    [[4.0]]
    """
    mask = tokens.mask
    return (tokens.values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def align(tokens: Tokens, instants: Tokens, causal: bool = False) -> Tensor:
    """Tokens of a stream at the instants of another: (B, S, H) → (B, T, H); zero where the stream is absent.

    Each instant gets the mean of the tokens it overlaps, weighted by the seconds shared; one that overlaps none gets the
    token whose middle is nearest, of those that begin before it ends where `causal` is true.

    >>> seconds = torch.tensor([[[0.0, 1.0], [1.0, 2.0]]])
    >>> sound = Tokens(torch.tensor([[[2.0], [6.0]]]), torch.ones(1, 2).bool(), seconds)
    >>> frame = Tokens(torch.zeros(1, 1, 1), torch.ones(1, 1).bool(), torch.tensor([[[0.5, 2.0]]]))
    >>> round(float(align(sound, frame)), 3)  # half a second of the first, a second of the other
    4.667
    """
    start = torch.maximum(instants.times[:, :, None, 0], tokens.times[:, None, :, 0])  # (B, T, S)
    end = torch.minimum(instants.times[:, :, None, 1], tokens.times[:, None, :, 1])
    shared = (end - start).clamp(min=0) * tokens.mask[:, None]
    distance = (instants.times.mean(-1)[:, :, None] - tokens.times.mean(-1)[:, None]).abs()
    there = tokens.mask[:, None]
    if causal:
        there = there & (tokens.times[:, None, :, 0] < instants.times[:, :, None, 1])
    nearest = distance.masked_fill(~there, torch.inf).argmin(-1)  # (B, T)
    alone = nn.functional.one_hot(nearest, tokens.mask.shape[1]) * there
    # Times are float32 seconds: what overlaps by less than a microsecond touches.
    weight = torch.where(shared.sum(-1, keepdim=True) > 1e-6, shared, alone.to(shared.dtype))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12) @ tokens.values


def keep_one(present: Tensor, share: float) -> Tensor:
    """Modality dropout: (B, M) presence → presence with each stream dropped with probability `share`.

    A clip that has any stream keeps at least one.
    """
    draw = torch.rand(present.shape, device=present.device)
    kept = present & (draw >= share)
    last = torch.where(present, draw, -1.0).argmax(1)
    spared = nn.functional.one_hot(last, present.shape[1]).bool() & present
    return torch.where(kept.any(1, keepdim=True), kept, spared)


def layer(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """Linear → LayerNorm → ReLU → Dropout."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU(), nn.Dropout(dropout))


def embedding(streams: int, width: int) -> nn.Parameter:
    """(M, H) learned vectors, near zero, one per stream."""
    return nn.Parameter(torch.randn(streams, width) * 0.02)
