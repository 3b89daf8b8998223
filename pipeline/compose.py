"""`conf/` → `params.yaml`: the same composition DVC makes when an experiment sets `-S group=choice`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ruamel.yaml import YAML

from .errors import ParamsError

#: Names of groups and choices that are gone → what they are called now.
RENAMED = {"dataset": "corpus", "encoders": "bundle", "protocol=kfold_actor": "protocol=kfold_speaker"}


def compose(overrides: Sequence[str] = (), folder: str | Path = "conf", name: str = "config") -> dict:
    """Plain parameters of a composition.

    Raises:
        ParamsError: an unknown group, choice or key, the line Hydra gives; or a name that is gone, with the new one.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        _check_name(override)
    try:
        with initialize_config_dir(str(Path(folder).resolve()), version_base=None):
            return cast(dict, OmegaConf.to_container(hydra_compose(name, list(overrides)), resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"{folder}: {' '.join(str(error).split())}") from error


def _check_name(override: str) -> None:
    """
    Raises:
        ParamsError: the group or the choice is called otherwise now.
    """
    written = override.lstrip("+~")
    for old in (written, written.partition("=")[0]):
        if old in RENAMED:
            raise ParamsError(f"{override}: {old} has been renamed; write {override.replace(old, RENAMED[old], 1)}.")


def text(values: dict) -> str:
    """Parameters as YAML, in the order of composition (what DVC writes)."""
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(values, buffer)
    return buffer.getvalue()
