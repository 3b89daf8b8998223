"""From what a transformers model returns to the layer of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.params.features import Layer

from . import pooling

if TYPE_CHECKING:
    import torch


def select_layer(output: Any, layer: Layer) -> torch.Tensor:
    """(B, T, D) or (B, T, L, D) of a transformers output, `layer` as in `Stream.layer` (several stay apart).

    The last of `hidden_states` lacks the final norm of pre-norm models; the model's result has it and stands for it.
    Other layers than the last are there only when the model was called with `output_hidden_states`.
    """
    states = [output.last_hidden_state]
    if layer != -1:
        states = [*output.hidden_states[:-1], output.last_hidden_state]
    return pooling.select(states, layer)
