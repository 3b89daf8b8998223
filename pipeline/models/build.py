"""A model from its specification."""

from __future__ import annotations

from .linear import LinearModel
from .model import EmotionModel, Model
from .spec import ModelSpec


def build_model(spec: ModelSpec) -> Model:
    """The network, or the linear model, of a specification.

    Raises:
        ParamsError: unknown part or option.
    """
    return LinearModel(spec) if spec.linear else EmotionModel(spec)
