"""Typed parameters. The only reader of `params.yaml`; unknown key, bad type or bad combination is one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, YAMLError

from pipeline.compose import RENAMED
from pipeline.errors import ParamsError, one_of

from .base import Count, Flag, Group, Name, Number, Positive, Share, Whole, check_name
from .data import Asr, Corpus, Decode, DecodeAudio, DecodeVideo, Faces, Integrity, Protocol, Quarantine
from .features import StoreLayout, Stream
from .learning import Fusion, Linear, Loss, Part, Phase, Task, Temporal, Term, Training

__all__ = [
    "Asr",
    "Corpus",
    "Count",
    "Decode",
    "DecodeAudio",
    "DecodeVideo",
    "Faces",
    "Flag",
    "Fusion",
    "Linear",
    "Group",
    "Integrity",
    "Loss",
    "Name",
    "Number",
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


class Params(Group):
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
    def _combination(self) -> Params:
        if not self.streams:
            raise ValueError("streams is empty; keep at least one")
        if not self.task.emotion and not self.task.dimensions:
            raise ValueError("task predicts nothing; set task.emotion or task.dimensions")
        return self

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
        ParamsError: the file is absent, not YAML, or holds something a parameter cannot be.
    """
    path = Path(path)
    if not path.is_file():
        raise ParamsError(f"{path} is not there. Run this from the folder that holds params.yaml.")
    try:
        return parse(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")), path)
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def parse(values: object, origin: str | Path = "params.yaml") -> Params:
    """Check parameters given as plain values."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError("; ".join(_line(origin, item) for item in error.errors())) from error


def parse_stream(values: object, origin: str | Path) -> Stream:
    """Check one stream given as plain values, e.g. a file of `conf/stream/`."""
    try:
        return Stream.model_validate(values)
    except ValidationError as error:
        raise ParamsError("; ".join(_line(origin, item) for item in error.errors())) from error


def _line(origin: str | Path, item: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
    if item["type"] == "extra_forbidden":
        return f"{origin}: unknown parameter {key}" + (f"; it is called {RENAMED[key]} now" if key in RENAMED else "")
    if item["type"] == "missing":
        return f"{origin}: parameter {key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
    return f"{origin}: {key}: {message}{given}"
