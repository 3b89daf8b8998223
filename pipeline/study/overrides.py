"""Overrides of the parameters as they are: `fusion=late` takes a file of `conf/`, `training.lr=0.01` sets a value.

`compose` would begin with `conf/` and lose what stands in `params.yaml` alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.compose import compose, differences
from pipeline.errors import ParamsError

#: Groups that a setting may change. Phase 1 and the folds are as they are: all settings share them.
LEARNING = ("task", "temporal", "fusion", "context", "heads", "loss", "training")


def parse_overrides(overrides: Sequence[str]) -> list[Any]:
    """Hydra's own reading of each.

    Raises:
        ParamsError: the line Hydra gives.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ParamsError(" ".join(str(error).split())) from error


def override(values: dict, overrides: Sequence[str], folder: Path = Path("conf")) -> dict:
    """A copy of plain parameters with the overrides in place.

    Raises:
        ParamsError: an override that cannot be read, a sweep, a choice that is not there, or one of phase 1, of the folds or of
            the seeds, which all settings share.
    """
    result = copy.deepcopy(values)
    for one in parse_overrides(overrides):
        if one.is_sweep_override():
            raise ParamsError(f"{one.input_line}: a setting has one value; several are a `grid`.")
        key = one.key_or_group
        if one.is_delete() and one.package:
            key = one.package
        if (folder / key).is_dir() and not one.is_delete():
            result[key] = compose([one.input_line], folder)[key]
        else:
            _put(result, key, one)
    _check(values, result, " ".join(overrides))
    return result


def _put(values: dict, key: str, one: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        if not isinstance(values.get(group), dict):
            values[group] = {}
        values = values[group]
    if one.is_delete():
        values.pop(last, None)
    else:
        values[last] = one.value()


def _check(before: dict, after: dict, told: str) -> None:
    for key in differences(before, after):
        group, _, rest = key.partition(".")
        dropped = group == "streams" and "." not in rest and rest not in after["streams"]
        if key == "training.seeds":
            raise ParamsError(f"{told}: all settings of a study have the same seeds; `every: seeds` asks how many are enough.")
        if group not in LEARNING and not dropped:
            raise ParamsError(
                f"{told}: {key} decides features or folds, which a study takes as they are; "
                f"it changes {', '.join(LEARNING)}, or drops streams."
            )
