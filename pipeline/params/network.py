"""Parameters of phase 2: task, temporal encoders, fusion, loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Count, Flag, Group, Number, Positive, Share, Whole


class Task(Group):
    """What is predicted. Classes by name; empty = all emotions of the manifest, sorted."""

    emotion: Flag = True
    classes: tuple[str, ...] = ()
    #: Dimensions regressed, in [-1, 1].
    dimensions: tuple[Literal["valence", "arousal", "dominance"], ...] = ("valence", "arousal")
    #: Per clip, or also per frame along the tokens of the time base.
    level: Literal["clip", "frame"] = "clip"
    #: Stream whose tokens are the frames; null = the first video or face stream, else the first.
    time_base: str | None = None


class Window(Group):
    """What a model is given of a clip at a time."""

    #: Tokens of the time base that stand together: a random stretch of them in training, all of them one after the other later.
    tokens: Whole = Field(ge=2)
    #: Tokens from one window to the next in validation, test and prediction; null = half a window.
    stride: Count | None = None

    @model_validator(mode="after")
    def _covers(self) -> Window:
        if self.stride is not None and self.stride > self.tokens:
            raise ValueError(f"stride {self.stride} is more than tokens {self.tokens}: between two windows nothing is predicted")
        return self


class Temporal(Group):
    """What the tokens of each stream tell each other over time."""

    #: `transformer`, `tcn` or `gru`; a file in `pipeline/models/temporal/`.
    kind: str = "transformer"
    #: Options of that file.
    options: dict[str, Any] = {}
    #: What is predicted of an instant knows of nothing that begins after it.
    causal: Flag = False
    #: Tokens are told where in the clip they lie, in seconds.
    position: Flag = True
    width: Whole = Field(default=64, ge=8)
    layers: Whole = Field(default=1, ge=0)
    heads: Count = 4
    dropout: Share = 0.1
    #: How a stream's tokens become one vector: their mean, mean and deviation, or both weighted by learned attention.
    readout: Literal["mean", "statistics", "attentive"] = "mean"
    #: Longer clips have adjacent tokens averaged, in windows those beside the time base; attention costs the square of it.
    max_tokens: Count = 256
    #: Parts of a clip that are read by themselves; null = the whole clip, or over time, where it is longer, `max_tokens` of it.
    window: Window | None = None
    #: `mean`, `statistics` (mean and deviation): one standardised row per clip, without a transformer, whatever `layers` says.
    pooling: Literal["none", "mean", "statistics"] = "none"
    #: Of pooled rows: deviation of what is added to each number in training.
    noise: Annotated[Number, Field(ge=0)] = 0.0
    #: Of pooled rows: stream → how much of the distance between clips it makes up, beside the others' 1.
    weights: dict[str, Positive] = {}
    #: Stream → the perceptron it goes through first: the widths of its hidden layers, in multiples of `width`; [] = none.
    hidden: dict[str, tuple[Count, ...]] = {}

    @model_validator(mode="after")
    def _divides(self) -> Temporal:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Temporal:
        if self.window is not None and self.pooling != "none":
            raise ValueError(f"pooling {self.pooling} reads a clip as one row; with a window take pooling none")
        if self.window is not None and self.window.tokens > self.max_tokens:
            raise ValueError(f"window.tokens {self.window.tokens} is more than max_tokens {self.max_tokens}")
        return self


class Part(Group):
    """A part by name; `options` belong to the file of that name."""

    name: str
    options: dict[str, Any] = {}


class Fusion(Part):
    """How streams become one; a YAML file in `conf/fusion/`."""


class Term(Part):
    """One term of the loss: `name` of the loss, the output it reads, its weight in the sum.

    Terms on what the task does not predict are left out. `emotion@audio` is the emotion as the stream `audio` alone has
    it (an auxiliary loss); `speaker` and `corpus` are predicted for the sake of the loss (a domain adversary).
    """

    #: Null = the output of the term's own name.
    on: str | None = None
    weight: Number = 1.0

    @model_validator(mode="before")
    @classmethod
    def _spell(cls, values: object) -> object:
        """In the YAML of `conf/` (1.1) the key `on` is the truth value."""
        return {"on" if key is True else key: value for key, value in values.items()} if isinstance(values, dict) else values


Loss = dict[str, Term]
