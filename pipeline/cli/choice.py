"""`use`: a choice that lasts. It is written to `conf/config.yaml`, from which `params.yaml` is composed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import params as parameters
from pipeline.compose import check_name, compose, text
from pipeline.errors import ParamsError
from pipeline.storage.atomic import atomic_file, write_text

SELF = "_self_"
#: Composed to see what a choice gives, before it takes the place of `config.yaml`.
CANDIDATE = "candidate"


def use(overrides: Sequence[str], folder: Path = Path("conf"), out: Path = Path("params.yaml")) -> dict[str, Any]:
    """Make the overrides what every later run starts from; `recipe=…` begins anew, without what was chosen for another.

    Returns:
        The parameters composed.

    Raises:
        ParamsError: an override that Hydra or the parameters refuse, a sweep, or one that a file cannot hold. Nothing is
            written then.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    path, candidate = folder / "config.yaml", folder / f"{CANDIDATE}.yaml"

    def compose_candidate(more: Sequence[str] = ()) -> dict[str, Any]:
        with atomic_file(candidate) as temporary, open(temporary, "w", encoding="utf-8") as file:
            yaml.dump(config, file)
        return compose(more, folder, CANDIDATE)

    compose((), folder)  # its line where there is no conf/
    config = yaml.load(path.read_text(encoding="utf-8"))
    parsed = sorted(_parse(overrides), key=lambda one: one.key_or_group != "recipe")
    groups = [one for one in parsed if (folder / one.key_or_group).is_dir()]
    single = [one for one in parsed if one not in groups]
    try:
        for override in groups:
            if override.key_or_group == "recipe":
                _forget(config)
            _choose(config, override)
        compose_candidate([str(one.input_line) for one in single])  # its line for a key that is not there
        for override in single:
            _set(config, override)
        values = compose_candidate()
        parameters.parse(values, folder)
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)
    write_text(out, text(values))
    return values


def _parse(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        found = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ParamsError(" ".join(str(error).split())) from error
    for override in found:
        if override.is_sweep_override():
            raise ParamsError(f"{override.input_line}: choose one; several are for `dvc exp run --queue -S …`.")
    return found


def _forget(config: dict) -> None:
    """Leave out what an earlier `use` chose beside its recipe."""
    last = next((i for i, item in enumerate(config["defaults"]) if _key(item) == "recipe"), len(config["defaults"]))
    config["defaults"][last + 1 :] = [SELF]
    for key in [key for key in config if key != "defaults"]:
        del config[key]


def _key(item: Any) -> str:
    """`{override /fusion: late}` → `fusion`."""
    word = str(next(iter(item))) if isinstance(item, dict) else str(item)
    return word.removeprefix("override ").lstrip("/")


def _choose(config: dict, override: Any) -> None:
    """A file of a group, e.g. `fusion=late`, `+stream@streams.face=…`, `~stream@streams.video`."""
    check_name(override.input_line)
    defaults = config["defaults"]
    name = f"{override.key_or_group}@{override.package}" if override.package else override.key_or_group
    choice = None if override.is_delete() else str(override.value())
    if name == "recipe":
        next(item for item in defaults if _key(item) == name)["recipe"] = choice
        return
    if SELF not in defaults:
        defaults.append(SELF)
    at = defaults.index(SELF)
    recipe = next((i for i, item in enumerate(defaults) if _key(item) == "recipe"), at)
    added = next((i for i in range(recipe + 1, at) if _key(defaults[i]) == name), None)
    chosen = next((i for i in range(at + 1, len(defaults)) if _key(defaults[i]) == name), None)
    if added is not None:
        defaults[added : added + 1] = [{name: choice}] if choice else []
    elif override.is_add():
        defaults.insert(at, {name: choice})
    elif chosen is not None:
        defaults[chosen] = {f"override {name}": choice}
    else:
        defaults.append({f"override {name}": choice})


def _set(config: dict, override: Any) -> None:
    """A value, e.g. `corpus.root=/data/meld`."""
    if override.is_delete():
        raise ParamsError(f"{override.input_line}: a value cannot be left out for good; set it to null, or edit conf/.")
    *groups, last = override.key_or_group.split(".")
    for group in groups:
        if not isinstance(config.get(group), dict):
            config[group] = {}
        config = config[group]
    config[last] = override.value()
