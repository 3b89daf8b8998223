"""The model of phase 2: stream encoders → fusion → heads."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from . import fusion
from .batch import Tokens
from .heads import ClassHead, DimensionHead, FrameHead
from .stream import StreamEncoder


class StreamSpec(BaseModel):
    """Shape of one stream's tokens: width D, and L when all hidden layers were kept (else 0)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int
    levels: int = 0


class ModelSpec(BaseModel):
    """All that is needed to build an `EmotionModel`; JSON in, JSON out.

    Attributes:
        classes: emotion names in the order of the logits; empty = no emotion head.
        dimensions: names in the order of the regression outputs; empty = no such head.
        base: stream along whose tokens frame-level dimensions are predicted; None = per clip only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    streams: dict[str, StreamSpec]
    width: int = 64
    layers: int = 1
    heads: int = 4
    dropout: float = 0.1
    fusion: str = "concat"
    options: dict[str, object] = {}
    classes: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    base: str | None = None


class Output(NamedTuple):
    """Predictions of a batch.

    Attributes:
        logits: (B, C) or None.
        dimensions: (B, K) in (-1, 1) or None.
        frames: (B, T, K) along the base stream's tokens or None; void where that stream has no token.
        fused: (B, H).
    """

    logits: Tensor | None
    dimensions: Tensor | None
    frames: Tensor | None
    fused: Tensor


class EmotionModel(nn.Module):
    """Emotion classes and valence–arousal from token streams, some of which may be missing.

    Raises:
        ParamsError: unknown fusion or option.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        width, dropout = spec.width, spec.dropout
        self.encoders = nn.ModuleDict(
            {
                name: StreamEncoder(stream.width, width, spec.layers, spec.heads, dropout, stream.levels)
                for name, stream in spec.streams.items()
            }
        )
        self.fusion = fusion.build(spec.fusion, tuple(spec.streams), width, spec.heads, dropout, dict(spec.options))
        self.emotion = ClassHead(width, len(spec.classes), dropout) if spec.classes else None
        size = len(spec.dimensions)
        self.dimensions = DimensionHead(width, width, size, dropout) if size else None
        self.frames = FrameHead(width, size, dropout) if size and spec.base else None

    def forward(self, tokens: dict[str, Tokens]) -> Output:
        """Predict.

        Args:
            tokens: every stream of the spec (others are not read); a stream a clip lacks has an
                all-false mask. T may be 1 at least; padding does not change the result.
        """
        encoded = {name: encoder(tokens[name]) for name, encoder in self.encoders.items()}
        masks = {name: tokens[name].mask for name in encoded}
        fused = self.fusion(encoded, masks)
        return Output(
            logits=None if self.emotion is None else self.emotion(fused),
            dimensions=None if self.dimensions is None else self.dimensions(fused),
            frames=None if self.frames is None else self.frames(encoded[self.spec.base], fused),
            fused=fused,
        )
