"""All that is needed to build a model, as values: JSON in, JSON out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from .pooled import Axis, Pooling


class StreamSpec(BaseModel):
    """Shape of one stream's tokens: width D, `levels` N where they are (N, D) (else 0), and how they are read.

    Attributes:
        axis: what N is.
        prompted: rows that last no time are a prompt's; only a language model reads them (`pooling: states`).
        hidden: of the perceptron they go through first, the widths of its hidden layers in multiples of the model's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int
    levels: int = 0
    axis: Axis = "layer"
    pooling: Pooling = "none"
    prompted: bool = False
    hidden: tuple[int, ...] = ()

    @property
    def reads(self) -> int:
        """Numbers of a clip's one row where tokens are pooled."""
        layers = self.levels if self.axis == "layer" else 1
        return self.width * max(1, layers) * (2 if self.pooling == "statistics" else 1)


class WindowSpec(BaseModel):
    """How long clips are read: `tokens` of the leading stream at a time, `stride` tokens on, no stream with more than `most`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int
    stride: int
    most: int


class PartSpec(BaseModel):
    """A part by name, with its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    options: dict[str, object] = {}


class LanguageSpec(BaseModel):
    """The layers of a language model that a fusion holds.

    Attributes:
        weights: address of the whole. architecture: of a stand-in.
        base: name of the whole's weights, whatever their address.
        config: of the layers held, as transformers says it.
        below, layers: how many lie below those held, and how many the whole has.
        dtype: of the weights, which are frozen.
        stream: holds the states after layer `below`; None where nothing is read from words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    architecture: dict[str, object] = {}
    base: str
    config: dict[str, object]
    below: int
    layers: int
    dtype: str = "float32"
    stream: str | None = None


class OutputSpec(PartSpec):
    """An output: its head (`name`), the head's options, and how many classes or dimensions it has."""

    size: int


class ModelSpec(BaseModel):
    """All that is needed to build an `EmotionModel`; JSON in, JSON out.

    Attributes:
        width, layers, heads, dropout: of the stream encoders. temporal: their kind.
        causal: what is predicted of an instant knows of nothing that begins after it.
        readout: how a stream's tokens become one vector: `mean`, `statistics`, `attentive`.
        turns: how many turns of its dialogue before a clip, and after it, the context is given.
        outputs: what is predicted, by name; `emotion@audio` is predicted from the stream `audio` alone.
        classes: emotion names in the order of the logits; empty = no emotion head.
        dimensions: names in the order of the regression outputs; empty = no such head.
        base: stream at whose instants frame-level dimensions are predicted; None = per clip only.
        window: how long clips are read; None = whole.
        noise: added to pooled rows in training, in deviations of each number.
        linear: a linear model; else a network.
        language: of a fusion that holds a language model.
        earlier: of a linear model: earlier turns read (`previous`, `before`, `own`), in the order of its columns, and what the
            row of each is multiplied by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    streams: dict[str, StreamSpec]
    width: int = 64
    layers: int = 1
    heads: int = 4
    dropout: float = 0.1
    temporal: PartSpec = PartSpec(name="transformer")
    causal: bool = False
    position: bool = True
    readout: str = "mean"
    fusion: PartSpec = PartSpec(name="concat")
    context: PartSpec | None = None
    turns: tuple[int, int] = (0, 0)
    outputs: dict[str, OutputSpec] = {}
    classes: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    base: str | None = None
    window: WindowSpec | None = None
    noise: float = 0.0
    linear: bool = False
    language: LanguageSpec | None = None
    earlier: tuple[tuple[str, float], ...] = ()
