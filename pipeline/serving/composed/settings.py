"""What such an extraction is made with; a YAML file in `conf/features/`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from ruamel.yaml import YAML, YAMLError

from pipeline.errors import ParamsError, one_of
from pipeline.models.composed.prompt import IMAGE, OWN, Wording
from pipeline.models.composed.readout import Readout
from pipeline.params import DecodeVideo, Stream, parse_stream
from pipeline.params.base import Count, Group, Name
from pipeline.params.file import load
from pipeline.parts import Options, read_options
from pipeline.runs.composed import Language

STREAMS = Path("conf/stream")


class Settings(Group):
    """Of an extraction.

    streams: in the order of the prompt, each a file of `conf/stream/` or a stream written out; `image` has rows of a picture,
        of the others the mean over time is one row.
    projectors: address of a published checkpoint, or `random:`.
    question, task: what is asked. readout: which hidden states are `llama_features`.
    image: what is kept as `image_projected`: its rows, or their mean.
    batch: prompts at a time. threads: that a processor computes with. dtype: of what is written.
    decode: how films are decoded; null = as the parameters of the run say.
    """

    streams: dict[Name, str | Stream] = Field(min_length=1)
    language: Language
    projectors: str
    question: str
    task: str | None = None
    wording: Wording = Wording()
    readout: Readout = Readout()
    image: Literal["all", "mean"] = "all"
    batch: Count = 4
    threads: Count = 1
    dtype: Literal["float16", "float32"] = "float16"
    decode: DecodeVideo | None = None

    @field_validator("streams")
    @classmethod
    def _named(cls, value: dict[str, str | Stream]) -> dict[str, str | Stream]:
        for name in value:
            if name in (*OWN, "llama"):
                raise ValueError(f"{name} is a part of every prompt; choose another name")
        return value

    def find_streams(self) -> dict[str, Stream]:
        """Name → stream.

        Raises:
            ParamsError: `conf/stream/` has no such file.
        """
        return find_streams(self.streams)


def find_streams(streams: Mapping[str, str | Stream]) -> dict[str, Stream]:
    """Name → stream; see `find_stream`."""
    return {name: find_stream(one) if isinstance(one, str) else one for name, one in streams.items()}


def find_stream(name: str) -> Stream:
    """A ready-made stream.

    Raises:
        ParamsError: there is none of that name.
    """
    path = STREAMS / f"{name}.yaml"
    if not path.is_file():
        raise one_of("stream", name, [file.stem for file in STREAMS.glob("*.yaml")])
    return parse_stream(load(path), path)


def read_settings(path: str | Path, changes: Sequence[str] = ()) -> Settings:
    """The settings of an extraction in a file; see `read_group`."""
    return read_group(Settings, path, changes)


def read_group(kind: type[Options], path: str | Path, changes: Sequence[str] = ()) -> Options:
    """Settings of a kind in a file.

    Args:
        changes: `readout.rows=legacy`; the value is YAML.

    Raises:
        ParamsError: one line that names what is wrong.
    """
    values = load(Path(path))
    for change in changes:
        _change(values, change)
    return read_options(kind, values, str(path))


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ParamsError(f"{change!r} changes nothing; write e.g. readout.rows=legacy.")
    try:
        value = YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        raise ParamsError(f"{change!r}: the value is no YAML.") from error
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ParamsError(f"{change!r}: {parent} is a single value.")
        values = inner
    values[last] = value


def is_image(name: str) -> bool:
    """Whether a stream's rows are those of one picture."""
    return name == IMAGE
