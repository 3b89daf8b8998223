"""A model from its specification."""

from __future__ import annotations

from .linear import LinearModel
from .model import EmotionModel, Model, ModelSpec


def build_model(spec: ModelSpec) -> Model:
    """The network, or the linear model, of a specification.

    Raises:
        ParamsError: unknown part or option.
    """
    return EmotionModel(spec) if spec.linear is None else LinearModel(spec)
