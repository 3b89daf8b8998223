"""Affectory in scripts and notebooks: `load` a feature store, `Predictor` of a trained run, `Stream` of one encoder.

Each is imported when it is asked for: reading features needs no torch. The stages of the DAG are `python -m pipeline`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.errors import UserError

    from .features import Features, load
    from .predictor import Predictor
    from .stream import Stream

__all__ = ["Features", "Predictor", "Stream", "UserError", "__version__", "load"]

_HOMES = {
    "load": "affectory.features",
    "Features": "affectory.features",
    "Predictor": "affectory.predictor",
    "Stream": "affectory.stream",
    "UserError": "pipeline.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from pipeline.version import VERSION

        return VERSION
    if name not in _HOMES:
        raise AttributeError(f"affectory has no {name}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
