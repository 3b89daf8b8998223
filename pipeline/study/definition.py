"""What a study asks, as `conf/study/NAME.yaml` says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import ParamsError, one_of
from pipeline.params import Group
from pipeline.params.file import load


class Entry(Group):
    """One setting, or with `every` or `grid` several.

    Attributes:
        name: for people; an entry with `every` or `grid` names its settings itself.
        set: overrides of the present parameters, as `-S` takes them.
        modalities: only streams of these. streams: only these.
        variant: what is compared: `fused`, `linear`, or a stream alone.
        every: `streams` (each set of them), `seeds` (one, two, …), a kind of part (`fusion`, `context`, `training.curriculum`,
            `training.sampler`: each there is), a group of `conf/` (`loss`: each file), `pace` (of the curriculum).
        only: of what `every` names; what is not there is a row that says so.
        grid: key → values; every combination.
    """

    name: str = ""
    set: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    variant: str | None = None
    every: str | None = None
    only: tuple[str, ...] = ()
    grid: dict[str, tuple[str | int | float | bool | None, ...]] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> Entry:
        if bool(self.name) + bool(self.every) + bool(self.grid) != 1:
            raise ValueError("a setting has either a name, or `every`, or `grid`")
        if self.modalities and self.streams:
            raise ValueError("a setting names either `modalities` or `streams`")
        return self


class Question(Group):
    """Settings that are compared with one of them.

    Attributes:
        reference: name of the setting that the others are compared with; null = the present parameters.
        defaults: key → value taken where the present parameters have null.
        compare: whether differences are tested; false where a setting is a part of the next.
        group: asked only where the folds are drawn by this, `protocol.group`.
    """

    question: str
    reference: str | None = None
    defaults: dict[str, Any] = {}
    compare: bool = True
    group: str | None = None
    settings: tuple[Entry, ...] = Field(min_length=1)


class Study(Group):
    """A name and its questions."""

    name: str
    questions: tuple[Question, ...] = Field(min_length=1)


def read_study(name: str, folder: Path = Path("conf")) -> Study:
    """The study of that name, `conf/study/NAME.yaml`: one question, or `questions: [...]`.

    Raises:
        ParamsError: there is none, or the file holds something a study cannot be.
    """
    path = folder / "study" / f"{name}.yaml"
    if not path.is_file():
        raise one_of("study", name, [one.stem for one in (folder / "study").glob("*.yaml")])
    values = load(path)
    if "questions" not in values:
        values = {"questions": [values]}
    try:
        return Study.model_validate({"name": name, **values})
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"])
        said = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        raise ParamsError(f"{path}: {key}: {said}") from error


def make_study(overrides: Sequence[str]) -> Study:
    """A study of every combination of `KEY=V1,V2`.

    Raises:
        ParamsError: an override that cannot be read, or none with several values.
    """
    from .overrides import parse_overrides

    found = parse_overrides(overrides)
    if not any(one.is_sweep_override() for one in found):
        raise ParamsError(f"{' '.join(overrides)}: a study compares several values, e.g. training.lr=0.001,0.003.")
    lists = {
        one.input_line.partition("=")[0]: tuple(
            one.sweep_string_iterator() if one.is_sweep_override() else [one.get_value_string()]
        )
        for one in found
    }
    entry = Entry(grid={key: tuple(str(value) for value in values) for key, values in lists.items()})
    return Study(name="sweep", questions=(Question(question=f"Which of {' '.join(overrides)}?", settings=(entry,)),))
