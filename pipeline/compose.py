"""`conf/` → `params.yaml`: the same composition DVC makes when an experiment sets `-S group=choice`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from .errors import ParamsError, one_of

#: Names of groups and choices that are gone → what they are called now.
RENAMED = {"dataset": "corpus", "encoders": "bundle", "protocol=kfold_actor": "protocol=kfold_speaker"}


def compose(overrides: Sequence[str] = (), folder: str | Path = "conf", name: str = "config") -> dict:
    """Plain parameters of a composition.

    Raises:
        ParamsError: an unknown group, choice or key, the line Hydra gives; or a name that is gone, with the new one.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not Path(folder, f"{name}.yaml").is_file():
        raise ParamsError(f"{Path(folder, name)}.yaml is not there. Run this from the folder that holds {folder}/.")
    for override in overrides:
        check_name(override)
    try:
        with initialize_config_dir(str(Path(folder).resolve()), version_base=None):
            return cast(dict, OmegaConf.to_container(hydra_compose(name, [_added(one) for one in overrides]), resolve=True))
    except MissingConfigException as error:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if not group or not error.options:
            raise ParamsError(f"{folder}: {' '.join(str(error).split())}") from error
        raise one_of(group, choice, error.options) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"{folder}: {' '.join(str(error).split())}") from error


def _added(override: str) -> str:
    """`+key=value` also where `conf/` names the key: which keys it names is nothing to know by heart."""
    key = override.partition("=")[0]
    return (
        f"+{override}"
        if override.startswith("+") and not override.startswith("++") and "." in key and "@" not in key
        else override
    )


def check_name(override: str) -> None:
    """
    Raises:
        ParamsError: the group or the choice is called otherwise now.
    """
    written = override.lstrip("+~")
    for old in (written, written.partition("=")[0]):
        if old in RENAMED:
            raise ParamsError(f"{override}: {old} has been renamed; write {override.replace(old, RENAMED[old], 1)}.")


def text(values: dict) -> str:
    """Parameters as YAML, in the order of composition: the very bytes DVC writes."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(values))


def differences(one: dict, other: dict, prefix: str = "") -> list[str]:
    """Keys, with their groups, whose values differ or that one side lacks.

    >>> differences({"fusion": {"name": "gated"}, "heads": {}}, {"fusion": {"name": "late"}, "heads": {}})
    ['fusion.name']
    """
    found: list[str] = []
    for key in dict.fromkeys([*one, *other]):
        if isinstance(one.get(key), dict) and isinstance(other.get(key), dict):
            found += differences(one[key], other[key], f"{prefix}{key}.")
        elif key not in one or key not in other or one[key] != other[key]:
            found.append(f"{prefix}{key}")
    return found
