"""Settings: what a study compares, each as parameters and the variant that is trained with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from pipeline import params as parameters
from pipeline.errors import ParamsError, one_of
from pipeline.models.registry import CONTEXTS, FUSIONS, LOSSES
from pipeline.params import Fusion, Params
from pipeline.params.learning import Student
from pipeline.parts import Parts
from pipeline.runs.folders import FUSED, LINEAR, STUDENT
from pipeline.training.curricula.base import CURRICULA
from pipeline.training.curricula.pacing import PACES
from pipeline.training.samplers.base import SAMPLERS
from pipeline.training.variants import Variant, list_variants

from .definition import Entry, Question
from .overrides import override

#: Key of the parameters → the parts that may stand there.
KINDS: dict[str, Parts] = {"fusion": FUSIONS, "context": CONTEXTS, "training.curriculum": CURRICULA, "training.sampler": SAMPLERS}
#: More streams have too many sets: all, all but one, and each alone.
LARGEST = 4
#: A face is a picture.
MODALITIES = {"face": "video"}


@dataclass(frozen=True)
class Setting:
    """One row of a study.

    Attributes:
        seeds: how many of the seeds; None = all.
        skipped: why it cannot be run; empty when it can.
    """

    name: str
    params: Params
    variant: Variant
    seeds: int | None = None
    skipped: str = ""

    def same(self, other: Setting) -> bool:
        """Whether the same runs belong to it."""
        mine, theirs = ((s.params.model_dump(exclude={"run"}), s.variant) for s in (self, other))
        return mine == theirs


def find_variant(params: Params, name: str) -> Variant:
    """The variant of that name, whether `training` asks for it or not.

    Raises:
        ParamsError: there is none.
    """
    training = params.training.model_copy(update={"unimodal": True, "linear": params.training.linear or parameters.Linear()})
    found = {one.name: one for one in list_variants(params.model_copy(update={"training": training}))}
    if name not in found:
        raise one_of("variant", name, found)
    return found[name]


def choose_streams(params: Params, names: Iterable[str]) -> Variant:
    """The fused model of some of the streams; of one, the variant that is trained beside it anyway."""
    chosen = tuple(sorted(names))
    if len(chosen) == 1 and len(params.inputs) > 1:
        return Variant(chosen[0], chosen, Fusion(name="concat"))
    return Variant(FUSED, chosen, params.fusion)


def list_settings(question: Question, params: Params, folder: Path = Path("conf")) -> list[Setting]:
    """The settings of a question; where they are compared, the reference first.

    Raises:
        ParamsError: an override, part, stream or reference that is not there.
    """
    values = params.model_dump(mode="json")
    for key, value in question.defaults.items():
        *groups, last = key.split(".")
        at: Any = values
        for group in groups:
            at = at.get(group) if isinstance(at, dict) else None
        if not isinstance(at, dict) or last not in at:
            raise ParamsError(f"defaults: there is no parameter {key}.")
        at[last] = value if at[last] is None else at[last]
    present = Setting("present", params, Variant(FUSED, params.inputs, params.fusion))
    found = [setting for entry in question.settings for setting in _expand(entry, values, folder)]
    if names := {one.name for one in found if [other.name for other in found].count(one.name) > 1}:
        raise ParamsError(f"two settings are named {min(names)!r}.")
    if not question.compare:
        return found
    if question.reference is not None:
        chosen = next((one for one in found if one.name == question.reference), None)
        if chosen is None:
            raise one_of("reference", question.reference, [one.name for one in found])
    else:
        chosen = next((one for one in found if not one.skipped and one.same(present)), present)
    return [chosen, *(one for one in found if one is not chosen)]


def _expand(entry: Entry, values: dict, folder: Path) -> Iterator[Setting]:
    if entry.every == "streams":
        params = parameters.parse(override(values, entry.set, folder))
        for names in _subsets(params.inputs):
            yield Setting(" + ".join(names), params, choose_streams(params, names))
    elif entry.every == "seeds":
        params = parameters.parse(override(values, entry.set, folder))
        for count in range(1, params.training.seeds + 1):
            yield Setting(f"{count} seed{'s' * (count > 1)}", params, find_variant(params, entry.variant or FUSED), count)
    else:
        found = dict(_list_overrides(entry, folder))
        for name in entry.only or found:
            setting = _make(name, [*entry.set, *found.get(name, ())], entry, values, folder)
            yield setting if name in found else replace(setting, skipped=f"there is no {entry.every} {name}")


def _list_overrides(entry: Entry, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and overrides of each setting of an entry."""
    every = entry.every
    if every is None and entry.grid:
        for chosen in product(*entry.grid.values()):
            pairs = [(key, _spell(value)) for key, value in zip(entry.grid, chosen, strict=True)]
            yield ", ".join(f"{_shorten(key, entry.grid)} {value}" for key, value in pairs), [f"{k}={v}" for k, v in pairs]
    elif every is None:
        yield entry.name, []
    elif every == "pace":
        for pace in PACES:
            yield pace, [f"training.curriculum.options.pace={pace}"]
    else:
        files = {path.stem for path in (folder / every).glob("*.yaml")} if "." not in every else set()
        if every not in KINDS and not files:
            raise one_of("kind in `every`", every, [*KINDS, "streams", "seeds", "pace", "loss"])
        for name in sorted(files | set(KINDS.get(every, ()))):
            yield name, [f"{every}={name}" if name in files else f"{every}={{name: {name}}}"]


def _make(name: str, overrides: list[str], entry: Entry, values: dict, folder: Path) -> Setting:
    try:
        params = parameters.parse(override(values, overrides, folder), f"setting {name!r}")
    except ParamsError as error:
        raise ParamsError(f"setting {name!r}: {str(error).removeprefix(f'setting {name!r}: ')}") from error
    check_parts(params)
    if entry.variant == LINEAR and params.training.linear is None:
        training = params.training.model_copy(update={"linear": parameters.Linear()})
        params = params.model_copy(update={"training": training})
    if entry.variant == STUDENT and params.training.student is None:
        ensemble = params.training.ensemble or parameters.Ensemble(linear=params.training.linear is not None)
        training = params.training.model_copy(update={"student": Student(), "ensemble": ensemble})
        params = params.model_copy(update={"training": training})
    variant = find_variant(params, entry.variant or FUSED)
    setting = Setting(name, params, variant)
    if lacking := [one for one in entry.streams if one not in params.streams]:
        return replace(setting, skipped=f"there is no stream {' or '.join(lacking)}")
    chosen = list(entry.streams)
    if entry.modalities:
        streams = {n: MODALITIES.get(s.modality, s.modality) for n, s in params.streams.items()}
        chosen = [n for n, modality in streams.items() if modality in entry.modalities]
        if lacking := [one for one in entry.modalities if one not in streams.values()]:
            return replace(setting, skipped=f"there is no stream of {' or '.join(lacking)}")
    return replace(setting, variant=choose_streams(params, chosen)) if chosen else setting


def check_parts(params: Params) -> None:
    """
    Raises:
        ParamsError: a part that is named is not there.
    """
    training = params.training
    chosen = (params.fusion, params.context, training.curriculum, training.sampler)
    named: list[tuple[Parts, str]] = [(kind, part.name) for kind, part in zip(KINDS.values(), chosen, strict=True) if part]
    named += [(LOSSES, term.name) for term in params.loss.values()]
    for parts, name in named:
        parts.find(name)


def _subsets(streams: Iterable[str]) -> list[tuple[str, ...]]:
    names = sorted(streams)
    sizes = range(len(names), 0, -1) if len(names) <= LARGEST else (len(names), len(names) - 1, 1)
    return [chosen for size in sizes for chosen in combinations(names, size)]


def _spell(value: object) -> str:
    """A value of YAML as an override says it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _shorten(key: str, keys: Iterable[str]) -> str:
    """The last word of a key, unless another key ends with the same."""
    last = key.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key
