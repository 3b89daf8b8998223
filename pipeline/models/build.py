"""A model from its specification."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .linear import LinearModel
from .model import EmotionModel, Model
from .spec import ModelSpec


def build_model(spec: ModelSpec, language: Mapping[str, Tensor] | None = None) -> Model:
    """The network, or the linear model, of a specification.

    Args:
        language: frozen weights of the language model's layers, where `spec.language` names some.

    Raises:
        ParamsError: unknown part or option.
    """
    return LinearModel(spec) if spec.linear else EmotionModel(spec, language)
