"""From what a model returns to the rows of a stream, where families read alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.params import Stream

from . import pooling
from .extractor import Prepared

if TYPE_CHECKING:
    import torch


def selected(output: Any, layer: int | str) -> torch.Tensor:
    """(B, T, D) of a transformers output, `layer` as in `Stream.layer` (`all` stacks them).

    The last of `hidden_states` lacks the final norm of pre-norm models; the model's result has it and stands for it.
    Other layers than the last are there only when the model was called with `output_hidden_states`.
    """
    states = [output.last_hidden_state]
    if layer != -1:
        states = [*output.hidden_states[:-1], output.last_hidden_state]
    return pooling.select(states, layer)


def pooled(values: torch.Tensor | np.ndarray, item: Prepared, stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """One clip's (T, ..., D) values and its times, pooled as the stream says."""
    return pooling.reduce(values, item.times, pooling=stream.pooling, rate=stream.rate)


def computed(stream: Stream, key: str = "values", device: str = "cpu") -> Callable:
    """`load` of a family without a network: `prepare` has put the rows under `key`; they are pooled as the stream says."""

    def forward(batch: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [pooled(item.inputs[key], item, stream) for item in batch]

    return forward
