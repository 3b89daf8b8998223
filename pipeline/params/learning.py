"""Parameters of phase 2: task, temporal encoders, fusion, loss, training."""

from __future__ import annotations

from typing import Any, Literal

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


class Temporal(Group):
    """The temporal transformer of each stream."""

    width: Whole = Field(default=64, ge=8)
    layers: Whole = Field(default=1, ge=0)
    heads: Count = 4
    dropout: Share = 0.1
    #: Longer clips have adjacent tokens averaged; attention costs the square of it.
    max_tokens: Count = 256

    @model_validator(mode="after")
    def _divides(self) -> Temporal:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
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


Loss = dict[str, Term]


class Phase(Group):
    """One phase of training; what is null is as `training` and `loss` say. The next begins with the best epoch's weights."""

    name: str = "fit"
    loss: Loss | None = None
    epochs: Count | None = None
    lr: Positive | None = None
    #: Parts that learn nothing: `encoders`, `encoders.audio`, `fusion`, `context`, `heads.emotion`, …
    freeze: tuple[str, ...] = ()


class Linear(Group):
    """The linear model beside the network: on pooled tokens, with streams scaled alike."""

    #: λ of mean cross entropy + λ/2 ‖W‖²; fixed, for a few validation speakers cannot choose it. Ridge finds its own.
    penalty: Positive = 0.1
    #: Stream → how much of the distance between clips it makes up, beside the others' 1.
    weights: dict[str, Positive] = {}


class Ensemble(Group):
    """The mean of all seeds' fused networks, as a variant of its own."""

    #: The linear model speaks as well, for half of it.
    linear: Flag = True


class Training(Group):
    seeds: Count = 5
    epochs: Count = 40
    batch_size: Count = 32
    lr: Positive = 1e-3
    weight_decay: Number = 0.01
    warmup: Share = 0.1
    patience: Count = 10
    clip_norm: Positive = 1.0
    #: Validation metric that selects the checkpoint.
    select: Literal["uar", "macro_f1", "weighted_f1", "accuracy", "ccc", "loss"] = "uar"
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
    #: Factors of the learning rate per part, e.g. {encoders: 0.1}; parts as in `phases.freeze`.
    rates: dict[str, Positive] = {}
    #: CPU threads of one run; fixed, since sums in another order end in other last bits.
    threads: Count = 1

    @model_validator(mode="after")
    def _has_members(self) -> Training:
        if self.ensemble is not None and self.ensemble.linear and self.linear is None:
            raise ValueError(
                "ensemble.linear is true, but linear is null: no linear model is fitted; set ensemble: {linear: false} or linear"
            )
        return self
