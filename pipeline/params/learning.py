"""Parameters of phase 2: how models are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Count, Flag, Group, Number, Positive, Share, Whole
from .network import Loss, Part, Temporal


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


class Earlier(Group):
    """Earlier turns that the linear model reads beside a clip: what the row of each is multiplied by; 0 = it is not read."""

    previous: Annotated[Number, Field(ge=0)] = 0.3
    #: The turn before the previous one.
    before: Annotated[Number, Field(ge=0)] = 0.2
    #: The last turn of the clip's own speaker, whichever that is.
    own: Annotated[Number, Field(ge=0)] = 0.3
    #: How many turns back it is looked for.
    turns: Count = 8

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The turns that are read, and the weight of each."""
        given = (("previous", self.previous), ("before", self.before), ("own", self.own))
        return tuple((turn, float(weight)) for turn, weight in given if weight)

    @model_validator(mode="after")
    def _reads_something(self) -> Earlier:
        if not self.weights:
            raise ValueError("previous, before and own are all 0: no earlier turn is read; say context: null")
        if self.before and self.turns < 2:
            raise ValueError(f"before is {self.before}, but turns is {self.turns}: it is two turns back; set before 0 or turns 2")
        return self


class Linear(Group):
    """The linear model beside the network: on pooled tokens, with streams scaled alike."""

    #: λ of mean cross entropy + λ/2 ‖W‖²; fixed, for a few validation speakers cannot choose it. Ridge finds its own.
    penalty: Positive = 0.1
    #: Turns before the clip that it reads as well; null = none.
    context: Earlier | None = None


class Ensemble(Group):
    """The mean of all seeds' fused networks, as a variant of its own."""

    #: The linear model speaks as well, for half of it.
    linear: Flag = True


class Student(Group):
    """One network per fold that learns what the ensemble says of training clips, beside their labels (Hinton et al. 2015)."""

    #: By which chances are softened, the ensemble's and its own; above 1 the small ones count more.
    temperature: Positive = 2.0
    #: Of the loss on emotion and dimensions: to what the ensemble says; the rest to the labels.
    share: Annotated[Share, Field(gt=0)] = 0.5
    #: Of its own in place of `temporal.width` and `temporal.layers`; null = those.
    width: Annotated[Whole, Field(ge=8)] | None = None
    layers: Annotated[Whole, Field(ge=0)] | None = None

    def resize(self, temporal: Temporal) -> Temporal:
        """`temporal` in its own size.

        Raises:
            ValueError: its width does not go into the heads.
        """
        own = {name: value for name, value in (("width", self.width), ("layers", self.layers)) if value is not None}
        if own.get("width", 0) % temporal.heads:
            raise ValueError(f"training.student.width {self.width} is not a multiple of temporal.heads {temporal.heads}")
        return temporal.model_copy(update=own)


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
    #: Also train one network per fold that the ensemble teaches; null = not.
    student: Student | None = None
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
    #: Processes that learn a run together where its fusion holds a language model, each on its own GPU or all on the processor.
    processes: Count = 1
    #: Its frozen layers are spread over them, for one that a GPU alone does not hold.
    shard: Flag = False
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
    def _goes_together(self) -> Training:
        if self.shard and self.processes == 1:
            raise ValueError("shard is true, but processes is 1: there is nothing to spread the layers over; set processes")
        if self.processes > 1 and self.mixup:
            raise ValueError("mixup pairs clips of a whole batch, and no process reads one; set processes to 1, or mixup to 0")
        return self

    @model_validator(mode="after")
    def _has_members(self) -> Training:
        if self.student is not None and self.ensemble is None:
            raise ValueError("student learns from the ensemble, which is null; set ensemble: {linear: true}, or student: null")
        if self.ensemble is not None and self.ensemble.linear and self.linear is None:
            raise ValueError(
                "ensemble.linear is true, but linear is null: no linear model is fitted; set ensemble: {linear: false} or linear"
            )
        return self
