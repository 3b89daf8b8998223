"""What is taught, of what, and how; a YAML file in `conf/instruct/`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.models.composed.prompt import Wording
from pipeline.models.composed.speaker import Sampling
from pipeline.params import Stream
from pipeline.params.base import Count, Flag, Group, Name, Number, Positive, Share, Whole
from pipeline.runs.composed import Language
from pipeline.serving.composed.settings import find_streams


class Task(Group):
    """Of the questions.

    tag: in brackets before the question; null = the task's name. questions: training draws one, all else asks the first;
        `{labels}` are the classes.
    answer: a key of the clip's record, of its `labels`, or a column of the manifest.
    labels: whether the answer is one of the classes; else any text.
    """

    tag: str | None = None
    questions: tuple[str, ...] = Field(min_length=1)
    answer: str = "emotion"
    labels: Flag = True


class Round(Group):
    """A stage of the recipe.

    steps: of the optimiser in an epoch; null = every example once. The rate rises over the share `warmup` of all steps to
    `lr`, then falls along a cosine to `final_lr`.
    """

    tasks: tuple[Name, ...] = Field(min_length=1)
    epochs: Count = 1
    steps: Count | None = None
    lr: Positive = 1e-5
    final_lr: Annotated[Number, Field(ge=0)] = 1e-6
    warmup: Share = 0.05
    weight_decay: Annotated[Number, Field(ge=0)] = 0.05


class Settings(Group):
    """Of instruction tuning.

    streams: in the order of the prompt (docs/emotion_llama.md). projectors: as there; they learn, with the adapters.
    transcript: whether the prompt quotes what is said.
    records: a JSON file of more about clips, by id or by its last part; null = what the manifest holds.
    weighted: answers that are classes count N / (K n_k), for N examples of K classes that are there, n_k of their own.
    batch: prompts at a time, times `accumulate` per step. threads: that a processor computes with.
    """

    streams: dict[Name, str | Stream] = {}
    language: Language
    projectors: str = "random:0"
    wording: Wording = Wording()
    transcript: Flag = True
    records: str | None = None
    tasks: dict[Name, Task] = Field(min_length=1)
    rounds: tuple[Round, ...] = Field(min_length=1)
    weighted: Flag = True
    batch: Count = 2
    accumulate: Count = 1
    clip_norm: Positive = 1.0
    seed: Whole = Field(default=0, ge=0)
    threads: Count = 1
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        for one in self.rounds:
            if unknown := [name for name in one.tasks if name not in self.tasks]:
                raise ValueError(f"rounds name the task {unknown[0]}; tasks has {', '.join(self.tasks)}")
        if self.language.lora is None and not self.streams:
            raise ValueError("without adapters and streams nothing learns; set language.lora")
        return self

    def find_streams(self) -> dict[str, Stream]:
        """Name → stream.

        Raises:
            ParamsError: `conf/stream/` has no such file.
        """
        return find_streams(self.streams)
