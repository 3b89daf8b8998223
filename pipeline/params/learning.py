"""Parameters of phase 2: task, temporal encoders, fusion, loss, training."""

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


class Pairs(Group):
    """Every clip as two windows of itself, cut from the tokens of the time base; shorter clips as they are."""

    #: Tokens of a window.
    length: Count = 8
    #: How many tokens apart the two begin, at most.
    apart: Count = 5


#: Names of what selects the checkpoint on validation.
Select = Literal["uar", "macro_f1", "weighted_f1", "accuracy", "ccc", "loss", "last"]


class Phase(Group):
    """One phase of training; what is null is as `training` and `loss` say. The next begins with the best epoch's weights."""

    name: str = "fit"
    loss: Loss | None = None
    epochs: Count | None = None
    lr: Positive | None = None
    schedule: Part | None = None
    warmup: Share | None = None
    batch_size: Count | None = None
    accumulate: Count | None = None
    patience: Count | None = None
    #: Null with a loss of its own that does not teach what is selected by: `loss`.
    select: Select | None = None
    pairs: Pairs | None = None
    #: Parts that learn nothing: `encoders`, `encoders.audio`, `fusion`, `context`, `heads.emotion`, …
    freeze: tuple[str, ...] = ()


class Dropout(Group):
    """Another dropout in a part, from an epoch of the phase on."""

    #: Named as in `phases.freeze`.
    part: str
    value: Share
    #: From 0; null = when the curriculum's epochs are over.
    from_epoch: Whole | None = Field(default=None, ge=0)


class Linear(Group):
    """The linear model beside the network: on pooled tokens, with streams scaled alike."""

    #: λ of mean cross entropy + λ/2 ‖W‖²; fixed, for a few validation speakers cannot choose it. Ridge finds its own.
    penalty: Positive = 0.1


class Ensemble(Group):
    """The mean of all seeds' fused networks, as a variant of its own."""

    #: The linear model speaks as well, for half of it.
    linear: Flag = True


#: What features may be normalised within so that unlabelled held-out clips have a part in every figure.
TRANSDUCTIVE = ("speaker", "session")


class Training(Group):
    seeds: Count = 5
    epochs: Count = 40
    batch_size: Count = 32
    #: Batches of one step; those left over at the end of an epoch make a step, too.
    accumulate: Count = 1
    lr: Positive = 1e-3
    weight_decay: Number = 0.01
    warmup: Share = 0.1
    #: How the learning rate goes over the steps of a phase; see `pipeline/training/schedules.py`.
    schedule: Part = Part(name="cosine")
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    #: Epochs without a better one after which training ends; null = never.
    patience: Count | None = 10
    #: When patience begins to count: at once, or when the curriculum's epochs are over.
    patience_from: Literal["start", "curriculum"] = "start"
    clip_norm: Positive = 1.0
    #: Validation metric that selects the checkpoint; `last`: nothing does, the last epoch stays.
    select: Select = "uar"
    #: How much of the averaged weights each step keeps; it is they that are judged and saved. 0 = the last step's weights.
    ema: Annotated[Share, Field(lt=1)] = 0.0
    #: Share of the training clips whose labels are seen; which, the seed draws. All are seen where a loss needs no labels.
    labels: Annotated[Share, Field(gt=0)] = 1.0
    #: Learn from the validation clips too; then nothing can be selected on them.
    refit: Flag = False
    #: What features are normalised over: the training clips, or all clips of the same speaker or session, held-out ones too.
    normalise: Literal["none", "train", "speaker", "session"] = "train"
    #: α of Beta(α, α), by which pairs of clips are mixed, features and losses; 0 = not. For pooled rows.
    mixup: Annotated[Number, Field(ge=0)] = 0.0
    #: Show every clip as two windows of itself, for losses that compare windows; null = whole.
    pairs: Pairs | None = None
    #: Of the shifts τ · log prior taken off the emotion logits, the one that is best on validation; empty = none.
    tau: tuple[Number, ...] = ()
    #: Also train each stream alone, for the comparison in the report.
    unimodal: Flag = True
    #: Also fit the linear model that the network has to beat; null = not.
    linear: Linear | None = Linear()
    #: Seeds select on one validation part after the other and are trained on the rest; false = all on the fold's own.
    rotate: Flag = False
    #: Also judge the mean of the seeds' fused networks; null = not.
    ensemble: Ensemble | None = None
    #: One after the other; empty = one that trains everything.
    phases: tuple[Phase, ...] = ()
    #: Order and company of the clips; null = `clips`, with a context `dialogues`.
    sampler: Part | None = None
    #: Which clips count how much, epoch by epoch; null = all alike.
    curriculum: Part | None = None
    #: Dropout that changes on the way, e.g. [{part: heads.emotion, value: 0.6, from_epoch: 15}]; the last that has begun holds.
    dropout: tuple[Dropout, ...] = ()
    #: Factors of the learning rate per part, e.g. {encoders: 0.1}; parts as in `phases.freeze`.
    rates: dict[str, Positive] = {}
    #: CPU threads of one run; fixed, since sums in another order end in other last bits.
    threads: Count = 1

    @model_validator(mode="after")
    def _leaves_validation(self) -> Training:
        if self.refit and (self.select != "last" or self.tau):
            raise ValueError("refit learns from the validation clips, so that select must be last, and tau empty")
        if self.refit and any(phase.select not in (None, "last") for phase in self.phases):
            raise ValueError("refit learns from the validation clips, so that select must be last in phases, too")
        if self.tau and self.select in ("ccc", "loss"):
            raise ValueError(f"tau is chosen by a metric of classes, not by {self.select}; select another, or leave tau empty")
        return self

    @model_validator(mode="after")
    def _has_members(self) -> Training:
        if self.ensemble is not None and self.ensemble.linear and self.linear is None:
            raise ValueError(
                "ensemble.linear is true, but linear is null: no linear model is fitted; set ensemble: {linear: false} or linear"
            )
        return self
