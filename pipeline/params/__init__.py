"""Typed parameters. The only reader of `params.yaml`; unknown key, bad type or bad combination is one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.compose import RENAMED
from pipeline.errors import ParamsError, one_of

from .adapting import ADAPTERS, Adapt
from .base import Count, Flag, Group, Name, Number, Positive, Share, Whole, check_name
from .data import Asr, Corpus, Decode, DecodeAudio, DecodeVideo, Faces, Integrity, Protocol, Quarantine
from .features import StoreLayout, Stream
from .file import load
from .learning import Dropout, Ensemble, Linear, Pairs, Phase, Student, Training
from .network import Fusion, Loss, Part, Task, Temporal, Term
from .pictures import check_pictures

__all__ = [
    "ADAPTERS",
    "Adapt",
    "Asr",
    "Corpus",
    "Count",
    "Decode",
    "DecodeAudio",
    "DecodeVideo",
    "Dropout",
    "Faces",
    "Flag",
    "Ensemble",
    "Fusion",
    "Linear",
    "Group",
    "Integrity",
    "Loss",
    "Name",
    "Number",
    "Pairs",
    "Params",
    "Part",
    "Phase",
    "Positive",
    "Protocol",
    "Quarantine",
    "Run",
    "Share",
    "StoreLayout",
    "Stream",
    "Task",
    "Temporal",
    "Term",
    "Training",
    "Whole",
    "parse",
    "parse_stream",
    "read",
]

#: Cross-entropy for classes, concordance and squared error for dimensions.
DEFAULT_LOSS: Loss = {
    "emotion": Term(name="cross_entropy"),
    "dimensions": Term(name="concordance"),
    "frames": Term(name="concordance"),
}
#: As names of streams they say what is in them.
MODALITIES = ("video", "face", "audio", "text")


class Run(Group):
    """Never part of an identity: changing these recomputes nothing."""

    device: str = "auto"
    workers: Whole = Field(default=2, ge=0)
    #: Share of an extractor's default batch budget.
    batch: Positive = 1.0
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    compile: Flag = False
    #: Seconds a clip may take to decode.
    timeout: Positive = 60.0
    track: tuple[Name, ...] = ()  # programs that are told the curves of each run, see training/trackers


class Params(Group):
    #: Says where the file comes from, to whoever opens it.
    composed: str = ""
    recipe: Name
    corpus: Corpus
    integrity: Integrity = Integrity()
    quarantine: Quarantine = Quarantine()
    protocol: Protocol = Protocol()
    decode: Decode = Decode()
    faces: Faces = Faces()
    asr: Asr = Asr()
    streams: dict[str, Stream]
    task: Task = Task()
    temporal: Temporal = Temporal()
    fusion: Fusion
    #: What a clip takes from earlier turns of its dialogue; null = nothing.
    context: Part | None = None
    #: Output → head, where it is not the one of the output's name.
    heads: dict[str, Part] = {}
    loss: Loss = DEFAULT_LOSS
    training: Training = Training()
    run: Run = Run()

    @model_validator(mode="after")
    def _modalities(self) -> Params:
        for name, stream in self.streams.items():
            # A face is a picture: the docs put such encoders under `video`.
            if name in MODALITIES and stream.modality not in ((name, "face") if name == "video" else (name,)):
                raise ValueError(
                    f"streams.{name}.modality is {stream.modality}: a stream named {name} holds no other modality; "
                    f"choose another encoder, or put it under another name (stream@streams.{stream.modality}=…)"
                )
        return self

    @model_validator(mode="after")
    def _pictures(self) -> Params:
        for name, stream in self.streams.items():
            check_pictures(name, stream, self.decode.video, self.faces)
        return self

    @model_validator(mode="after")
    def _combination(self) -> Params:
        if not self.streams:
            raise ValueError("streams is empty; keep at least one")
        if not self.task.emotion and not self.task.dimensions:
            raise ValueError("task predicts nothing; set task.emotion or task.dimensions")
        (self.training.student or Student()).resize(self.temporal)
        for name in self.teachers:
            if name not in self.streams:
                raise ValueError(f"a loss has the teacher {name}, which is no stream; known: {', '.join(sorted(self.streams))}")
        if not self.inputs:
            raise ValueError("every stream is the teacher of a loss, which the model does not read; add one that it does")
        return self

    @property
    def teachers(self) -> tuple[str, ...]:
        """Streams that are the truth of a term of the loss (its `options.teacher`)."""
        terms = [self.loss, *(phase.loss for phase in self.training.phases if phase.loss)]
        named = {term.options.get("teacher") for loss in terms for term in loss.values()}
        return tuple(sorted(str(name) for name in named if name is not None))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Streams that the model reads: all but the teachers."""
        return tuple(sorted(set(self.streams) - set(self.teachers)))

    @field_validator("streams", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """A stream's name becomes a file and a word of a shell command."""
        for name in value if isinstance(value, dict) else ():
            try:
                check_name(str(name))
            except ValueError as error:
                raise ValueError(f"stream {name!r}: {error}") from error
        return value

    @field_validator("streams", mode="after")
    @classmethod
    def _adapters(cls, value: dict[str, Stream]) -> dict[str, Stream]:
        """A stream that is adapted says where its adapter is: what knows the stream alone finds it."""
        found = dict(value)
        for name, stream in value.items():
            place = f"{ADAPTERS}/{name}"
            if stream.adapt is None:
                continue
            if stream.adapter not in (None, place):
                raise ValueError(f"streams.{name} has an adapter and is to be adapted; leave out adapter or adapt")
            found[name] = stream.model_copy(update={"adapter": place})
        return found

    @field_validator("loss", mode="before")
    @classmethod
    def _terms(cls, value: object) -> object:
        """Until version 0.1 the loss was one flat group."""
        old = ("class_weights", "label_smoothing", "gamma")
        if isinstance(value, dict) and (set(value) & set(old) or any(not isinstance(v, dict | Term) for v in value.values())):
            raise ValueError(
                "the loss is named terms now: write loss.emotion.name, loss.emotion.options.class_weights (label_smoothing, "
                "gamma) and loss.dimensions.weight; see conf/loss"
            )
        return value

    def stream(self, name: str) -> Stream:
        """The stream of that name.

        Raises:
            ParamsError: there is none.
        """
        if name not in self.streams:
            raise one_of("stream", name, self.streams)
        return self.streams[name]


def read(path: str | Path = "params.yaml") -> Params:
    """Read and check the parameters.

    Raises:
        ParamsError: the file is no mapping in YAML (see `file.load`), or holds something a parameter cannot be.
    """
    return parse(load(Path(path)), path)


def parse(values: object, origin: str | Path = "params.yaml") -> Params:
    """Check parameters given as plain values."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(_lines(origin, error)) from error


def parse_stream(values: object, origin: str | Path) -> Stream:
    """Check one stream given as plain values, e.g. a file of `conf/stream/`."""
    try:
        return Stream.model_validate(values)
    except ValidationError as error:
        raise ParamsError(_lines(origin, error)) from error


def _lines(origin: str | Path, error: ValidationError) -> str:
    """The first few faults; a file that is no params.yaml at all has hundreds."""
    items = error.errors()
    more = f"; and {len(items) - 10} more" if len(items) > 10 else ""
    return "; ".join(_line(origin, item) for item in items[:10]) + more


def _line(origin: str | Path, item: Mapping[str, Any]) -> str:
    # A key may be as long and as odd as a file allows.
    key = " ".join(".".join(str(part)[:80] for part in item["loc"]).split()) or "(whole file)"
    if item["type"] == "extra_forbidden":
        return f"{origin}: unknown parameter {key}" + (f"; it is called {RENAMED[key]} now" if key in RENAMED else "")
    if item["type"] == "missing":
        return f"{origin}: parameter {key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict) else f" (got {_shorten(item['input'])})"
    return f"{origin}: {key}: {message}{given}"


def _shorten(value: object) -> str:
    """A value as it was given, no longer than a line bears."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]} …"
