"""From what a transformers model returns to the layers that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.params.features import Layer

from . import pooling

if TYPE_CHECKING:
    import torch


def needs_hidden(layers: Sequence[Layer]) -> bool:
    """Whether the model is to be called with `output_hidden_states`: for any layer but the last."""
    return any(layer != -1 for layer in layers)


def select_layers(output: Any, layers: Sequence[Layer]) -> list[torch.Tensor]:
    """Per layer, as in `Stream.layer`, (B, T, D) or (B, T, L, D) of a transformers output (several stay apart).

    The last of `hidden_states` lacks the final norm of pre-norm models; the model's result has it and stands for it.
    """
    states = [output.last_hidden_state]
    if needs_hidden(layers):
        states = [*output.hidden_states[:-1], output.last_hidden_state]
    return [pooling.select(states, layer) for layer in layers]
