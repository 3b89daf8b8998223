"""Parameters of stage `adapt`: how an encoder learns from the training clips before its features are extracted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Count, Flag, Group, Number, Positive, Share, Whole
from .learning import Term

#: Where stage `adapt` puts the adapter of each stream.
ADAPTERS = "models/adapters"


class Adapt(Group):
    """Of one stream."""

    #: `lora`: low-rank terms beside linear layers (Hu et al. 2021). `partial`: the last `blocks`. `full`: all weights.
    method: Literal["lora", "partial", "full"] = "lora"
    #: `emotion`: classes by a linear head. `dimensions`: clips or frames near each other in valence and arousal.
    objective: Literal["emotion", "dimensions"] = "emotion"
    #: Terms by name, as under `loss`, on `emotion`, `dimensions`, `frames`, `embedding`, `projection` or `projection.frames`;
    #: empty = cross-entropy, or supervised contrast weighted by the dimensions.
    loss: dict[str, Term] = {}
    #: Rank; LoRA adds alpha / r · B A.
    r: Count = 8
    alpha: Count = 16
    #: Of LoRA's input.
    dropout: Share = 0.05
    #: Names of linear layers, or their ends; empty = the attention's queries and values, where it has no such, all.
    targets: tuple[str, ...] = ()
    #: The last blocks that learn; null = all, with `partial` one.
    blocks: Count | None = None
    #: Whether an instant of the stream is a row of its own; null = where dimensions are learned and known over time.
    level: Literal["clip", "frame"] | None = None
    #: Width of the space in which rows are compared.
    projection: Count = 128
    epochs: Count = 10
    #: Clips per step of the encoder, times `accumulate` per step of the optimiser.
    batch: Count = 16
    accumulate: Count = 1
    #: Of the encoder, and of what stands on it.
    lr: Positive = 1e-4
    head_lr: Positive = 1e-3
    weight_decay: Number = 0.01
    #: Share of the steps over which rates rise; then they fall along a cosine.
    warmup: Share = 0.1
    clip_norm: Positive = 1.0
    #: Macro-F1 on validation clips beyond which the encoder counts as adapted and is frozen; null = all epochs.
    gate: Share | None = 0.5
    #: Epochs without a better one before it ends; null = never.
    patience: Count | None = 3
    #: Epochs that go on after the gate, at a small constant rate.
    beyond: Whole = Field(default=0, ge=0)
    beyond_lr: Positive = 1e-5
    #: The window of a clip that is looked at: frames of pictures, seconds of sound. Drawn anew each epoch; null = all.
    frames: Count | None = 16
    seconds: Positive | None = 10.0
    #: Activations of a block are computed twice in place of kept.
    gradient_checkpointing: Flag = False
    #: `bfloat16`: products in half precision; weights stay as they are.
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Whole = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Adapt:
        if self.targets and self.method != "lora":
            raise ValueError(f"targets are of lora; method is {self.method}")
        if self.blocks and self.method == "full":
            raise ValueError("full teaches all blocks; set method to partial, or leave blocks out")
        if self.level == "frame" and self.objective == "emotion":
            raise ValueError("an emotion is of a clip; leave level out")
        if self.beyond and (self.gate is None or self.objective != "emotion"):
            raise ValueError("beyond counts from the gate, which is of the objective emotion; set gate, or leave beyond at 0")
        return self

    @property
    def terms(self) -> dict[str, Term]:
        """The loss, as it is where none is given."""
        if self.loss:
            return self.loss
        if self.objective == "emotion":
            return {"emotion": Term(name="cross_entropy")}
        return {"projection": Term(name="supervised_contrastive", options={"labels": "dimensions"})}
